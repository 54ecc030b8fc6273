"""What alerts say, in English and in French, in the plain words of SPEC §2.

A text is a row of sentences; one that needs a detail nobody gave is left out. `{document}` is a
detail; a sentence that begins with `[name]` needs that detail without saying it. `{what}` is in
the words of an error, which are English in every language.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Final, Literal, TypeAlias, get_args

from seline.domain.document import Json

Language: TypeAlias = Literal["en", "fr"]
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)
TEXT_CHARACTERS_MAX: Final = 500
_NEEDS = re.compile(r"\[(\w+)\]")
_ENDS: Final = (".", "!", "?", "…")


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What is said of one type of alert: what happened, the next step, and that it is over."""

    happened: tuple[str, ...]
    fix: str
    over: str = ""


def wording(kind: str, details: Mapping[str, Json], language: Language) -> tuple[str, str]:
    """Return an alert's summary and its next step."""
    words = WORDS[kind][language]
    spoken = _spoken(details, language)
    return _said(words.happened, spoken), _said((words.fix,), spoken)


def resolution(kind: str, details: Mapping[str, Json], language: Language) -> str:
    """Return what is said when an alert is over."""
    return _said((WORDS[kind][language].over,), _spoken(details, language))


def fields_of(sentence: str) -> frozenset[str]:
    """Return the details that a sentence needs."""
    named = {field for _, field, _, _ in Formatter().parse(sentence) if field}
    return frozenset(named | set(_NEEDS.findall(sentence)))


def _said(sentences: tuple[str, ...], spoken: Mapping[str, str]) -> str:
    return " ".join(
        _NEEDS.sub("", sentence, count=1).format_map(spoken)
        for sentence in sentences
        if fields_of(sentence) <= spoken.keys()
    )


def _spoken(details: Mapping[str, Json], language: Language) -> dict[str, str]:
    """Return the details as they are said; what is empty, and what is no word, is left out."""
    spoken = {
        name: _one_spoken(value, language)
        for name, value in details.items()
        if isinstance(value, (str, int, float)) and value not in ("", False)
    }
    if (what := spoken.get("what", "")) and not what.endswith(_ENDS):
        spoken["what"] = f"{what}."
    how = _HOW[language].get(str(details.get("verdict")))
    return spoken | ({"how": how} if how else {})


def _one_spoken(value: str | float, language: Language) -> str:
    if isinstance(value, str):
        return value[:TEXT_CHARACTERS_MAX]
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace(".", ",") if language == "fr" else text


_HOW: Final[Mapping[Language, Mapping[str, str]]] = {
    "en": {"torn": "half-written", "altered": "changed by the disk"},
    "fr": {"torn": "à moitié écrit", "altered": "modifié par le disque"},
}

WORDS: Final[Mapping[str, Mapping[Language, Words]]] = {
    "recovery": {
        "en": Words(
            happened=(
                "{document} was broken and has been recovered.",
                "It was {how}.",
                "Its content now comes from the backup {backup}.",
                "[from_memory]Its content now comes from memory.",
                "Lost: the changes after {lost_after}.",
                "[nothing_lost]Nothing is lost.",
                "The broken bytes were set aside.",
            ),
            fix=(
                "Look at what was set aside with `seline quarantine`; if it happens again, ask the "
                "volume's provider."
            ),
        ),
        "fr": Words(
            happened=(
                "{document} était cassé et a été récupéré.",
                "Il était {how}.",
                "Son contenu vient maintenant de la sauvegarde {backup}.",
                "[from_memory]Son contenu vient maintenant de la mémoire.",
                "Perdu : les changements après {lost_after}.",
                "[nothing_lost]Rien n'est perdu.",
                "Les octets cassés ont été mis de côté.",
            ),
            fix=(
                "Regardez ce qui a été mis de côté avec `seline quarantine` ; si cela se "
                "reproduit, interrogez le fournisseur du volume."
            ),
        ),
    },
    "unrecoverable_document": {
        "en": Words(
            happened=(
                "{document} is broken and none of its backups is sound: it cannot be served.",
                "It is {how}.",
                "Nothing was overwritten.",
            ),
            fix=(
                "Restore or import {document}, or give it up with `seline reset {document}`: its "
                "bytes go to quarantine."
            ),
            over="{document} can be served again.",
        ),
        "fr": Words(
            happened=(
                (
                    "{document} est cassé et aucune de ses sauvegardes n'est saine : il ne peut "
                    "pas être servi."
                ),
                "Il est {how}.",
                "Rien n'a été écrasé.",
            ),
            fix=(
                "Restaurez ou importez {document}, ou abandonnez-le avec "
                "`seline reset {document}` : ses octets vont en quarantaine."
            ),
            over="{document} peut de nouveau être servi.",
        ),
    },
    "served_from_memory": {
        "en": Words(
            happened=(
                (
                    "{document} is broken on the volume and nothing can be written there; its "
                    "sound content is served from memory."
                ),
            ),
            fix="Take an export now with `seline export`, then look at `seline status`.",
        ),
        "fr": Words(
            happened=(
                (
                    "{document} est cassé sur le volume et rien ne peut y être écrit ; son contenu "
                    "sain est servi depuis la mémoire."
                ),
            ),
            fix="Faites un export maintenant avec `seline export`, puis voyez `seline status`.",
        ),
    },
    "backup_damaged": {
        "en": Words(
            happened=(
                "Damaged backups of {document}, which are not counted any more: {backups}.",
                "The first one: {backup}.",
            ),
            fix=(
                "Nothing is lost while {document} itself is sound; its next changes make new "
                "backups. `seline backups {document}` shows them."
            ),
            over="The damaged backups of {document} are gone.",
        ),
        "fr": Words(
            happened=(
                "Sauvegardes abîmées de {document}, qui ne comptent plus : {backups}.",
                "La première : {backup}.",
            ),
            fix=(
                "Rien n'est perdu tant que {document} lui-même est sain ; ses prochains "
                "changements feront de nouvelles sauvegardes. `seline backups {document}` les "
                "montre."
            ),
            over="Les sauvegardes abîmées de {document} ont disparu.",
        ),
    },
    "journal_damaged": {
        "en": Words(
            happened=(
                (
                    "The record of a change of several documents was changed by the disk and set "
                    "aside."
                ),
                "That change may be there only in part.",
            ),
            fix="Look at the documents that change together, and restore them if need be.",
        ),
        "fr": Words(
            happened=(
                (
                    "La trace d'un changement de plusieurs documents a été modifiée par le disque "
                    "et mise de côté."
                ),
                "Ce changement n'est peut-être là qu'en partie.",
            ),
            fix="Regardez les documents qui changent ensemble, et restaurez-les au besoin.",
        ),
    },
    "disk_error": {
        "en": Words(
            happened=("The disk reported an error.", "It concerns {document}.", "Detail: {what}"),
            fix="Take an export now with `seline export`, and ask the volume's provider.",
        ),
        "fr": Words(
            happened=(
                "Le disque a signalé une erreur.",
                "Elle concerne {document}.",
                "Détail (en anglais) : {what}",
            ),
            fix=(
                "Faites un export maintenant avec `seline export`, et interrogez le fournisseur "
                "du volume."
            ),
        ),
    },
    "writes_refused": {
        "en": Words(
            happened=(
                "The volume takes no changes at the moment.",
                "[reads]Reads go on.",
                "[unopened]It could not be opened, so nothing is read either.",
                "[retries]Seline goes on trying by itself.",
                "Detail: {what}",
            ),
            fix="Look at `seline status`, and at the disk.",
            over="The volume takes changes again.",
        ),
        "fr": Words(
            happened=(
                "Le volume n'accepte aucun changement en ce moment.",
                "[reads]Les lectures continuent.",
                "[unopened]Il n'a pas pu être ouvert : rien n'est lu non plus.",
                "[retries]Seline continue d'essayer tout seul.",
                "Détail (en anglais) : {what}",
            ),
            fix="Voyez `seline status`, et le disque.",
            over="Le volume accepte de nouveau les changements.",
        ),
    },
    "wrong_mount": {
        "en": Words(
            happened=(
                (
                    "The data directory does not lie on the mounted volume; nothing is written, "
                    "since it would be lost with the container."
                ),
                "Detail: {what}",
            ),
            fix=(
                "Attach the volume where the data directory is, or set `storage.require_mount = "
                "false` if this is meant."
            ),
            over="The data directory lies on the mounted volume again.",
        ),
        "fr": Words(
            happened=(
                (
                    "Le répertoire des données n'est pas sur le volume monté ; rien n'est écrit, "
                    "car tout serait perdu avec le conteneur."
                ),
                "Détail (en anglais) : {what}",
            ),
            fix=(
                "Montez le volume là où se trouve le répertoire des données, ou mettez "
                "`storage.require_mount = false` si c'est voulu."
            ),
            over="Le répertoire des données est de nouveau sur le volume monté.",
        ),
    },
    "checksums_unsupported": {
        "en": Words(
            happened=(
                (
                    "This volume keeps no checksums: a file that was changed by the disk and still "
                    "reads as JSON is not noticed."
                ),
            ),
            fix="Put the data directory on a local ext4, xfs or btrfs volume.",
            over="This volume keeps checksums.",
        ),
        "fr": Words(
            happened=(
                (
                    "Ce volume ne garde pas de sommes de contrôle : un fichier modifié par le "
                    "disque qui se lit encore comme du JSON passe inaperçu."
                ),
            ),
            fix="Mettez le répertoire des données sur un volume local ext4, xfs ou btrfs.",
            over="Ce volume garde des sommes de contrôle.",
        ),
    },
    "blank_save": {
        "en": Words(
            happened=(
                "A save removed most of {document}.",
                "The content before it is kept until {until}.",
            ),
            fix=(
                "If it was a mistake: `seline restore {document}`. If it was meant, pass "
                "`shrink=True`, or name the document in `backups.blank_guard_except`."
            ),
        ),
        "fr": Words(
            happened=(
                "Un enregistrement a vidé presque tout {document}.",
                "Le contenu d'avant est gardé jusqu'au {until}.",
            ),
            fix=(
                "Si c'est une erreur : `seline restore {document}`. Si c'est voulu, passez "
                "`shrink=True`, ou nommez le document dans `backups.blank_guard_except`."
            ),
        ),
    },
    "usage": {
        "en": Words(
            happened=(
                "The volume is {percent} % full.",
                "[of_files]It is the number of files that runs out: nearly as many as it can hold.",
                "[half]Above half, Railway's own manual backups stop working.",
                "[sheds]Old backups are given up to make room.",
                "[refuses]Changes that need more room are refused.",
            ),
            fix="Free space with `seline prune`, delete documents, or enlarge the volume.",
            over="The volume has room again.",
        ),
        "fr": Words(
            happened=(
                "Le volume est plein à {percent} %.",
                "[of_files]C'est le nombre de fichiers qui s'épuise : presque tous sont pris.",
                (
                    "[half]Au-delà de la moitié, les sauvegardes manuelles de Railway ne marchent "
                    "plus."
                ),
                "[sheds]De vieilles sauvegardes sont abandonnées pour faire de la place.",
                "[refuses]Les changements qui demandent plus de place sont refusés.",
            ),
            fix=(
                "Libérez de la place avec `seline prune`, supprimez des documents, ou agrandissez "
                "le volume."
            ),
            over="Le volume a de nouveau de la place.",
        ),
    },
    "days_until_full": {
        "en": Words(
            happened=(
                "At the present pace the volume will soon be full.",
                "Days left: about {days}.",
            ),
            fix="Enlarge the volume, keep fewer backups, or look for what grows.",
            over="The volume will not be full soon any more.",
        ),
        "fr": Words(
            happened=(
                "Au rythme actuel, le volume sera bientôt plein.",
                "Jours restants : environ {days}.",
            ),
            fix="Agrandissez le volume, gardez moins de sauvegardes, ou cherchez ce qui grossit.",
            over="Le volume ne sera plus bientôt plein.",
        ),
    },
    "job_failed": {
        "en": Words(
            happened=("The job `{job}` did not succeed.", "Detail: {what}"),
            fix="Look at `seline jobs`; run it again with `seline jobs run {job}`.",
            over="The job `{job}` succeeds again.",
        ),
        "fr": Words(
            happened=("La tâche `{job}` n'a pas réussi.", "Détail (en anglais) : {what}"),
            fix="Voyez `seline jobs` ; relancez-la avec `seline jobs run {job}`.",
            over="La tâche `{job}` réussit de nouveau.",
        ),
    },
    "job_overdue": {
        "en": Words(
            happened=("The job `{job}` is overdue.", "It last succeeded at {last_success}."),
            fix="Look at `seline jobs`; run it now with `seline jobs run {job}`.",
            over="The job `{job}` is on time again.",
        ),
        "fr": Words(
            happened=(
                "La tâche `{job}` est en retard.",
                "Sa dernière réussite date du {last_success}.",
            ),
            fix="Voyez `seline jobs` ; lancez-la maintenant avec `seline jobs run {job}`.",
            over="La tâche `{job}` est de nouveau à l'heure.",
        ),
    },
    "many": {
        "en": Words(
            happened=(
                (
                    "There are more alerts of the kind `{type}` than are told one by one: the disk "
                    "may be failing as a whole."
                ),
            ),
            fix="`seline status` and `seline verify` show everything.",
        ),
        "fr": Words(
            happened=(
                (
                    "Il y a plus d'alertes du genre `{type}` que celles dites une à une : le "
                    "disque entier est peut-être en train de lâcher."
                ),
            ),
            fix="`seline status` et `seline verify` montrent tout.",
        ),
    },
    "test": {
        "en": Words(
            happened=("This is a test: alerts arrive here.",), fix="Nothing needs to be done."
        ),
        "fr": Words(
            happened=("Ceci est un essai : les alertes arrivent ici.",),
            fix="Il n'y a rien à faire.",
        ),
    },
}
