"""Compare the store with a dictionary under random sequences of operations.

Only some steps have the files of all documents written, so that in the form 'files later' several
changes of a document wait in the journal.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from seline.blocking import open_seline
from seline.domain.document import ABSENT
from seline.errors import DocumentNotFound
from tests.faults.forms import FILES_LATER, FIRST, FORMS

AS_USED = "the form that a user has"
NAMES = ("a.json", "b.json", "c.json")
EXAMPLES = settings(
    max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
names = st.sampled_from(NAMES)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.text(max_size=8)
    | st.just("x" * 100),  # the journal has what changes beside it
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
objects = st.dictionaries(st.text(max_size=4), values, max_size=4)


class Store(RuleBasedStateMachine):
    """Apply each operation to a store on a real directory and to a dictionary.

    `changes_waited`: once, two changes of a document were not in its file.
    """

    changes_waited: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="seline-model-"))
        self.seline = open_seline(self.directory)
        self.model: dict[str, Any] = {}
        self.history: dict[str, list[Any]] = {}

    def teardown(self) -> None:
        self.seline.close()
        shutil.rmtree(self.directory)

    def _set(self, name: str, value: Any) -> None:
        if name in self.model and self.model[name] != value:
            self.history.setdefault(name, []).append(self.model[name])
        self.model[name] = value

    @rule(name=names, value=values)
    def save(self, name: str, value: Any) -> None:
        self.seline.data.save_json(name, value)
        self._set(name, value)

    @rule(name=names, field=st.text(max_size=4), value=values)
    def update(self, name: str, field: str, value: Any) -> None:
        if isinstance(self.model.get(name, {}), dict):
            self.seline.data.update_field(name, field, value)
            self._set(name, {**self.model.get(name, {}), field: value})

    @rule(changed=st.dictionaries(names, objects, min_size=1))
    def commit_a_transaction(self, changed: dict[str, Any]) -> None:
        with self.seline.data.transaction() as change:
            for name, value in changed.items():
                change[name] = value
        for name, value in changed.items():
            self._set(name, value)

    @rule(changed=st.dictionaries(names, objects, min_size=1))
    def roll_back_a_transaction(self, changed: dict[str, Any]) -> None:
        try:
            with self.seline.data.transaction() as change:
                for name, value in changed.items():
                    change[name] = value
                raise RuntimeError
        except RuntimeError:
            pass

    @rule(name=names)
    def delete(self, name: str) -> None:
        try:
            self.seline.data.delete(name)
            assert name in self.model
            self.history.setdefault(name, []).append(self.model.pop(name))
        except DocumentNotFound:
            assert name not in self.model

    @precondition(lambda self: self.model)
    @rule(mode=st.sampled_from(["merge", "replace"]), files=st.dictionaries(names, values))
    def import_documents(self, mode: str, files: dict[str, Any]) -> None:
        self.seline.data.import_data({"files": files}, mode=mode)
        for name, value in files.items():
            self._set(name, value)
        if mode == "replace":
            for name in set(self.model) - set(files):
                self.history.setdefault(name, []).append(self.model.pop(name))

    @rule()
    def reopen(self) -> None:
        self.seline.close()
        self.seline = open_seline(self.directory)

    @rule()
    def export(self) -> None:
        exported = self.seline.data.export_all_data()
        assert exported == {"exported_at": exported["exported_at"], "files": self.model}

    @rule()
    def read_backups(self) -> None:
        for name, earlier in self.history.items():
            backups = [backup for backup in self.seline.data.backups(name) if not backup.pinned]
            assert len(backups) <= 5
            if backups:
                newest = self.seline.data.read_backup(name, backups[0].name)
                assert newest in earlier

    @invariant()
    def each_document_has_the_last_value(self) -> None:
        for name in NAMES:
            found = self.seline.data.load_json(name, default=ABSENT)
            assert found == self.model.get(name, ABSENT)
            last_two = [found, *self.history.get(name, [])[-1:]]
            if self._in_file(name) not in [ABSENT, *last_two]:
                Store.changes_waited = True

    def _in_file(self, name: str) -> Any:
        path = self.directory / name
        return json.loads(path.read_bytes()) if path.exists() else ABSENT


@pytest.mark.parametrize("form", [FIRST, AS_USED, FILES_LATER])
def test_the_store_equals_the_model_in_each_form(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form != AS_USED:
        FORMS[form](monkeypatch)

    Store.changes_waited = False

    run_state_machine_as_test(Store, settings=EXAMPLES)

    if form != AS_USED:
        assert Store.changes_waited == (form == FILES_LATER)
