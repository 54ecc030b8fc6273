"""A way through every view and every act of the page, with a stop at each page to look at."""

import json
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from tests.chromium.hand import Hand
from tests.chromium.place import (
    BROKEN,
    DELETED,
    LIST,
    NEVER_SAVED,
    PROFILE,
    SET_ASIDE,
    Place,
    waiting_for,
)
from tests.http_client import ADMIN

Stops: TypeAlias = Iterator[str]
"""The names of the pages that are shown, one after another."""
Stage: TypeAlias = Callable[[Hand, Place], Stops]
AT: Final = f"/documents/{PROFILE}"
NOT_JSON: Final = '{\n  "userName": "Zoé",\n  "ville": Orléans\n}\n'


def sign_in(hand: Hand, place: Place) -> Stops:
    """Sign in with a wrong token, then with the right one."""
    hand.open("/documents")
    yield "sign_in"
    hand.fill("textbox", "sign_in.token", "wrong")
    hand.press("sign_in.button")
    assert hand.status == 401
    yield "sign_in_refused"
    hand.fill("textbox", "sign_in.token", ADMIN)
    hand.press("sign_in.button")
    assert hand.visited[-1] == "/documents"


def home(hand: Hand, place: Place) -> Stops:
    """Look at what is wrong, and press each button that mends something."""
    hand.open("/")
    yield "home"
    hand.unfold(hand.page.locator("main summary").first)
    yield "home_unfolded"
    hand.follow("prune.title")
    yield "prune"
    hand.press("prune.button")
    hand.wait()
    yield "home_pruned"
    hand.press("home.verify")
    hand.wait()
    yield "home_verified"
    hand.open("/")
    hand.press("copies.accept", destination="lab")
    hand.wait()
    hand.says("copies.accept_done", destination="lab")
    hand.open("/")
    hand.press("copies.use", destination="usb")
    hand.wait()
    hand.says("copies.use_done", destination="usb")
    hand.open("/")
    hand.press("jobs.run", job=hand.t("home.job_export"))
    hand.wait()
    yield "home_job_ran"


def documents(hand: Hand, place: Place) -> Stops:
    """Search, bring a deleted document back, and undo that."""
    hand.follow("kit.nav_documents")
    yield "documents"
    hand.fill("searchbox", "documents.search", "profil")
    hand.press("documents.search_button")
    yield "documents_found"
    hand.fill("searchbox", "documents.search", "zzz")
    hand.press("documents.search_button")
    yield "documents_none_found"
    hand.follow("documents.all")
    hand.open("/documents/deleted")
    yield "deleted"
    hand.press("documents.undelete_name", name=DELETED)
    assert place.load(DELETED)["plan"]
    yield "undeleted"
    hand.press("kit.undo")
    hand.says("documents.deleted_done", name=DELETED)
    yield "undelete_undone"
    hand.open(f"/documents/{DELETED}")
    yield "document_deleted"


def new_document(hand: Hand, place: Place) -> Stops:
    """Make a document: a wrong name and text, a name that is taken, then a right one."""
    hand.open("/documents")
    hand.follow("new.title")
    yield "new"
    hand.fill("textbox", "new.name", "notes")
    hand.fill("textbox", "edit.text", NOT_JSON)
    hand.press("edit.save")
    assert hand.status == 422
    yield "new_wrong"
    hand.fill("textbox", "new.name", PROFILE)
    hand.fill("textbox", "edit.text", "{}")
    hand.press("edit.save")
    assert hand.status == 412
    yield "new_exists"
    hand.fill("textbox", "new.name", NEVER_SAVED)
    hand.press("edit.save")
    yield "new_made"
    hand.press("kit.undo")
    hand.says("documents.deleted_done", name=NEVER_SAVED)


def document(hand: Hand, place: Place) -> Stops:
    """Look into a document, pin a backup and unpin it, delete and undo."""
    hand.open("/documents")
    hand.go_to(PROFILE)
    yield "document"
    assert hand.download("documents.download").startswith(b"{")
    hand.open(f"/documents/{LIST}?at=/0")
    yield "document_part"
    hand.open("/documents/mood_log.json")
    yield "document_long"
    hand.open(AT)
    backup = place.call("GET", f"/documents/{PROFILE}/backups")["backups"][1]["name"]
    hand.press("documents.pin_name", backup=backup)
    yield "pinned"
    hand.press("documents.unpin_name", backup=backup)
    yield "unpinned"
    hand.press("kit.undo")
    hand.press("kit.undo")
    hand.follow("documents.delete")
    yield "delete"
    place.save(PROFILE, {**place.load(PROFILE), "note": "beside"})
    hand.press("documents.delete")
    assert hand.status == 412
    yield "delete_asked_again"
    hand.press("documents.delete")
    yield "delete_done"
    hand.press("kit.undo")
    assert place.load(PROFILE)["note"] == "beside"
    hand.follow("documents.delete")
    hand.follow("kit.cancel")
    hand.open(f"/documents/{BROKEN}")
    yield "document_broken"
    hand.follow("documents.delete")
    yield "delete_broken"


def restore(hand: Hand, place: Place) -> Stops:
    """See what a backup would change, restore one value and the whole, undo both."""
    hand.open(AT)
    hand.follow_backup(-1)
    yield "difference"
    hand.follow("documents.only_this")
    yield "difference_of_one_value"
    hand.press("documents.restore_path")
    yield "restored_one_value"
    hand.press("kit.undo")
    before = place.load(PROFILE)
    hand.follow_backup(-1)
    place.save(PROFILE, {**before, "note": "newer"})
    hand.press("documents.restore")
    assert hand.status == 412
    yield "restore_asked_again"
    hand.press("documents.restore")
    assert place.load(PROFILE) != before
    yield "restored"
    hand.press("kit.undo")
    assert place.load(PROFILE) == {**before, "note": "newer"}
    yield "restore_undone"
    hand.open(f"/documents/{DELETED}")
    hand.follow_backup(0)
    yield "difference_to_nothing"
    hand.follow("kit.cancel")


def edit(hand: Hand, place: Place) -> Stops:
    """Edit: wrong text, right text, over a newer content, and a document that does not exist."""
    hand.open(AT)
    hand.follow("documents.edit")
    yield "edit"
    hand.fill("textbox", "edit.text", NOT_JSON)
    hand.press("edit.save")
    assert hand.status == 422
    yield "edit_not_json"
    hand.fill("textbox", "edit.text", NOT_JSON.replace("Orléans", '"Orléans"'))
    hand.press("edit.save")
    yield "edit_saved"
    hand.follow("documents.edit")
    place.save(PROFILE, {"userName": "Zoé", "ville": "Tours"})
    hand.fill("textbox", "edit.text", '{"userName": "Zoé", "ville": "Nantes"}')
    hand.press("edit.save")
    assert hand.status == 412
    yield "edit_over_newer"
    hand.press("edit.save_over")
    assert place.load(PROFILE)["ville"] == "Nantes"
    hand.press("kit.undo")
    assert place.load(PROFILE)["ville"] == "Tours"
    hand.open(f"/documents/{NEVER_SAVED}/edit")
    yield "edit_absent"
    hand.fill("textbox", "edit.text", "{}")
    hand.press("edit.save")
    yield "edit_created"
    hand.press("kit.undo")
    hand.says("documents.deleted_done", name=NEVER_SAVED)


def set_aside(hand: Hand, place: Place) -> Stops:
    """Bring a file back that was set aside."""
    hand.follow("kit.nav_set_aside")
    yield "set_aside"
    hand.go_to(SET_ASIDE)
    yield "set_aside_item"
    assert hand.download("set_aside.download").startswith(b'{"r')
    hand.follow("set_aside.edit")
    yield "set_aside_edit"
    hand.fill("textbox", "edit.text", '{"réveil": "7 h"}')
    hand.press("edit.save")
    assert place.load(SET_ASIDE) == {"réveil": "7 h"}
    hand.press("kit.undo")
    assert place.load(SET_ASIDE)["semaine"] >= 0


def copies(hand: Hand, place: Place) -> Stops:
    """Copy, prove, restore from a copy, undo, and change a destination."""
    hand.follow("kit.nav_copies")
    yield "copies"
    for key in ("mirror_now", "export_now", "drill_now"):
        hand.press(f"copies.{key}")
        hand.wait()
        hand.open("/copies")
    place.save(PROFILE, {"userName": "Zoé", "ville": "Lyon"})
    hand.follow("kit.act_on", act=hand.t("copies.there"), name="nas")
    yield "copies_there"
    hand.go_to(hand.t("copies.restore_from"))
    yield "copies_choose"
    hand.fill("searchbox", "copies.find", "zzz")
    hand.press("copies.find_button")
    yield "copies_none_found"
    hand.fill("searchbox", "copies.find", "profile")
    hand.press("copies.find_button")
    hand.press("copies.preview_some")
    assert hand.status == 422
    yield "copies_none_chosen"
    hand.page.go_back()
    hand.tick(PROFILE)
    hand.press("copies.preview_some")
    hand.wait()
    yield "copies_preview"
    hand.press("copies.restore")
    hand.wait()
    assert place.load(PROFILE)["ville"] != "Lyon"
    yield "copies_restored"
    hand.press("kit.undo")
    hand.wait()
    assert place.load(PROFILE)["ville"] == "Lyon"
    yield "copies_undone"
    hand.open("/copies")
    hand.follow("kit.act_on", act=hand.t("copies.there"), name="nas")
    hand.go_to(hand.t("copies.restore_from"))
    hand.press("copies.preview_all")
    hand.wait()
    yield "copies_preview_all"
    hand.follow("kit.cancel")
    for act in ("accept", "use"):
        hand.open(f"/copies/nas/{act}")
        yield f"copies_{act}"
        hand.press(f"copies.{act}", destination="nas")
        hand.wait()
        hand.says(f"copies.{act}_done", destination="nas")


def jobs(hand: Hand, place: Place) -> Stops:
    """Run a job, and read its runs."""
    hand.follow("kit.nav_jobs")
    yield "jobs"
    hand.press("kit.act_on", act=hand.t("jobs.run_short"), name=hand.t("home.job_rotation"))
    hand.wait()
    yield "jobs_ran"
    hand.open("/jobs/mirror")
    yield "jobs_runs"
    hand.press("jobs.run_short")
    hand.wait()


def alerts(hand: Hand, place: Place) -> Stops:
    """Send a test alert to a receiver that answers late."""
    hand.follow("kit.nav_alerts")
    yield "alerts"
    place.sink.answers.clear()
    hand.press("alerts.test")
    yield "work_running"
    place.sink.answers.set()
    hand.page.reload()
    hand.wait()
    yield "work_done"
    hand.follow("work.back")
    hand.press("alerts.test")
    hand.wait()
    yield "alerts_tested"


def tokens(hand: Hand, place: Place) -> Stops:
    """Make a token with a wrong and a right expiry, then revoke it."""
    hand.follow("kit.nav_tokens")
    yield "tokens"
    hand.fill("textbox", "tokens.label", "Tableau de bord")
    hand.choose("tokens.scope", "read")
    hand.fill("textbox", "tokens.days", "never")
    hand.press("tokens.make")
    assert hand.status == 422
    yield "tokens_wrong_days"
    hand.fill("textbox", "tokens.days", "30")
    hand.press("tokens.make")
    yield "tokens_made"
    hand.press("tokens.undo")
    yield "tokens_revoked"
    token = json.loads(place.command("token", "list", "--json"))["tokens"][0]["id"]
    hand.follow("tokens.revoke_title", id=token)
    yield "tokens_revoke"
    hand.press("tokens.revoke")
    hand.says("tokens.revoked", id=token)


def audit(hand: Hand, place: Place) -> Stops:
    """Read who changed what."""
    hand.follow("kit.nav_audit")
    yield "audit"
    hand.fill("searchbox", "audit.document", PROFILE)
    hand.press("audit.filter")
    yield "audit_of_one"
    hand.fill("searchbox", "audit.document", "none.json")
    hand.press("audit.filter")
    yield "audit_none"


def reference(hand: Hand, place: Place) -> Stops:
    """Look up the HTTP API."""
    hand.open("/")
    hand.follow("kit.reference")
    yield "reference"


def sessions(hand: Hand, place: Place) -> Stops:
    """End this session, and come back to a form that was not sent."""
    hand.open(f"/documents/{SET_ASIDE}/edit")
    text = hand.named("textbox", "edit.text").input_value().replace("7 h", "8 h")
    hand.fill("textbox", "edit.text", text)
    with hand.another(ADMIN) as other:
        other.open("/sessions")
        other.end_another_session()
    hand.press("edit.save")
    assert hand.status == 401
    yield "session_ended"
    hand.fill("textbox", "sign_in.token", ADMIN)
    hand.press("sign_in.button")
    yield "send_again"
    hand.press("sign_in.resume_button")
    assert place.load(SET_ASIDE)["réveil"] == "8 h"
    yield "sent_again"
    hand.follow("kit.sessions")
    yield "sessions"
    hand.end_another_session()
    hand.says("sessions.ended")


def errors(hand: Hand, place: Place) -> Stops:
    """Ask for what does not exist, and for what is refused."""
    for name, path, status in (
        ("error_stray", "/nothing/here", 404),
        ("error_no_backup", f"{AT}/backups/user_profile_20200101_000000.json", 404),
        ("error_no_such_value", f"{AT}?at=/none", 404),
        ("error_wrong_name", "/documents/notes.txt/edit", 422),
        ("error_no_destination", "/copies/none", 404),
        ("error_no_work", "/work/0000000000000000", 404),
        ("error_wrong_method", "/sign-out", 405),
        ("document_never_saved", f"/documents/{NEVER_SAVED}", 200),
    ):
        hand.open(path)
        assert hand.status == status, (path, hand.status)
        yield name
    hand.open("/")
    with hand.another(ADMIN) as other:
        [cookie] = [each for each in other.page.context.cookies() if each["name"] == "seline"]
        hand.page.context.add_cookies([cookie])
    hand.press("kit.sign_out")
    assert hand.status == 403
    yield "error_form_of_another_session"


def language(hand: Hand, place: Place) -> Stops:
    """Change the language, and back."""
    hand.open("/documents")
    here = hand.t
    for _ in range(2):
        hand.press("kit.other_language")
        hand.t = type(here)("fr" if hand.t.language == "en" else "en")
        hand.says("documents.title")
    yield "language_chosen"


def reader(hand: Hand, place: Place) -> Stops:
    """Sign in with a token that may only read."""
    hand.open("/")
    hand.press("kit.sign_out")
    hand.fill("textbox", "sign_in.token", place.command("token", "create", "--scope", "read"))
    hand.press("sign_in.button")
    yield "reader_home"
    for name in ("documents", "set-aside", "copies", "copies/nas", "jobs", "alerts"):
        hand.open(f"/{name}")
        yield f"reader_{name.replace('-', '_').replace('/', '_')}"
    hand.open(AT)
    yield "reader_document"
    hand.follow_backup(-1)
    yield "reader_difference"
    hand.open("/tokens")
    assert hand.status == 403
    yield "error_forbidden"
    hand.follow("kit.to_home")


def too_many(hand: Hand, place: Place) -> Stops:
    """Sign in with wrong tokens until the page asks to wait."""
    hand.open("/")
    hand.press("kit.sign_out")
    for _ in range(20):
        hand.fill("textbox", "sign_in.token", "wrong")
        hand.press("sign_in.button")
        if hand.status != 401:
            break
    assert hand.status == 429
    yield "error_too_many"


def held(hand: Hand, place: Place) -> Stops:
    """Open a server that waits for its volume, which another process holds."""
    with waiting_for(place) as address:
        hand.page.goto(address + "/")
        yield "error_held"


TOUR: Final[tuple[Stage, ...]] = (
    sign_in,
    home,
    documents,
    new_document,
    document,
    restore,
    edit,
    set_aside,
    copies,
    jobs,
    alerts,
    tokens,
    audit,
    reference,
    language,
    errors,
    sessions,
    reader,
    too_many,
    held,
)


def empty(hand: Hand, place: Place) -> Stops:
    """See each view of an empty volume, from the link of the first start."""
    hand.page.goto(place.link)
    yield "first_link"
    hand.press("sign_in.button")
    yield "first_home"
    for name in ("documents", "set-aside", "copies", "jobs", "alerts", "tokens", "audit"):
        hand.open(f"/{name}")
        yield f"first_{name.replace('-', '_')}"
    hand.open("/documents/deleted")
    yield "first_deleted"
    hand.page.goto(place.link)
    hand.open("/")
    hand.press("kit.sign_out")
    hand.page.goto(place.link)
    hand.press("sign_in.button")
    assert hand.status == 401
    yield "first_link_used"
