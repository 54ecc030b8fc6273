"""Compare the store with a dictionary under random sequences of operations."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from seline.blocking import open_seline
from seline.errors import DocumentNotFound

names = st.sampled_from(["a.json", "b.json", "c.json"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
objects = st.dictionaries(st.text(max_size=4), values, max_size=4)


class Store(RuleBasedStateMachine):
    """Apply each operation to a store on a real directory and to a dictionary."""

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

    @invariant()
    def the_store_equals_the_model(self) -> None:
        export = self.seline.data.export_all_data()
        assert export == {"exported_at": export["exported_at"], "files": self.model}
        for name, value in self.model.items():
            assert self.seline.data.load_json(name) == value

    @invariant()
    def the_newest_backup_is_an_earlier_content(self) -> None:
        for name, earlier in self.history.items():
            backups = [backup for backup in self.seline.data.backups(name) if not backup.pinned]
            assert len(backups) <= 5
            if backups:
                newest = self.seline.data.read_backup(name, backups[0].name)
                assert newest in earlier


TestStore = Store.TestCase
TestStore.settings = settings(
    max_examples=12, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
