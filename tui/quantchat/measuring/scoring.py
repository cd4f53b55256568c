"""Score a text with each model in its own worker, and compare the models with the reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quantchat import paths
from quantchat.engines.registry import engine_of
from quantchat.host.job_runner import JobFailed
from quantchat.host.limits import MemoryLimits
from quantchat.measuring.score_plan import ScorePlan, floor_of
from quantchat.measuring.score_results import Figures
from quantchat.profile.model import AnyVariant, Profile
from quantchat.session.failures import failure_before_start
from quantchat.session.model_jobs import ModelJobs
from quantchat.session.requests import threads_for
from quantchat.snapshot.score import (
    PairRecord,
    Role,
    ScoredRecord,
    ScoreRecord,
    SettingRecord,
    StorageRecord,
)
from quantchat.statistics.quality import depth_ends, passages
from quantchat.wire.jobs import Fit, ScoreJob, ScoreResult, Workspace
from quantchat.wire.messages import LoadModel
from quantchat.wire.variant import ModelInfo

FORM = "half precision"
"""Storage format of the logits; see `worker/scoring/logit_store.py`."""


@dataclass(frozen=True)
class _StoredLogits:
    """A scored model whose logits are stored for later comparisons."""

    name: str
    """Beginning of the names of the files that compare other models with these logits."""
    figures: Figures

    @property
    def logits(self) -> Path:
        """The file with the stored logits."""
        return self.figures.folder / "forecasts"


class Scoring:
    """Scores the text of a plan with its models, one after the other, and collects the records."""

    def __init__(
        self,
        profile: Profile,
        plan: ScorePlan,
        folder: Path,
        jobs: ModelJobs,
    ) -> None:
        self._profile, self._plan, self._folder = profile, plan, folder
        self._jobs = jobs
        self._first = self._second = ""
        if plan.pair:
            self._first, self._second = (variant.label for variant in profile.variants[:2])
        self._others = [v for v in profile.variants if v is not plan.reference]
        self._unread = [plan.reference.label, *(variant.label for variant in self._others)]
        self._stored: dict[str, _StoredLogits] = {}
        self.models: list[ScoredRecord] = []
        """Records of the models that are scored or failed."""
        self._pair: list[PairRecord] = []
        self._setting: SettingRecord | None = None
        self._storage: StorageRecord | None = None

    @property
    def record(self) -> ScoreRecord | None:
        """The results so far; None if no model has scored the text."""
        if self._setting is None:
            return None
        return ScoreRecord(
            setting=self._setting,
            storage=self._storage,
            models=list(self.models),
            pair=self._pair,
            unread=list(self._unread),
        )

    async def run(self) -> None:
        """Score all models. A failure is recorded and does not stop the others."""
        reference = self._plan.reference
        ran = await self.score("reference", reference)
        floor = floor_of(reference, ran, self._plan.floor) if ran else None
        if floor is not None:
            await self.score("floor", floor)
        for spec in self._others:
            await self.score("variant", spec)

    # ------------------------------------------------------------ one model

    def restore(self, record: ScoreRecord) -> None:
        """Continue from `record`, the results of an earlier process that used the same folder.

        If the stored logits of the reference are missing, start anew.
        """
        reference = self._plan.reference.label
        folder = self._folder / "0"
        if not (folder / "forecasts").is_file():
            return
        setting = record.setting
        self._setting, self._storage = setting, record.storage
        self._stored[reference] = _StoredLogits("0", self._figures(folder, setting.positions))
        self.models = list(record.models)
        done = {one.label for one in record.models}
        self._unread = [label for label in self._unread if label not in done]

    def is_scored(self, label: str) -> bool:
        """Return whether the model `label` is scored or failed."""
        return any(one.label == label for one in self.models)

    async def score(self, role: Role, spec: AnyVariant) -> ModelInfo | None:
        """Score the text with `spec`; return what was loaded, or None if it failed."""
        try:
            folder = paths.private(self._folder / str(len(self.models)))
            note, result = await self._jobs.do(
                spec, lambda load: self._job(role, spec, load, folder)
            )
        except (JobFailed, OSError) as error:
            self._finish(
                role, spec, ScoredRecord.failed(spec.label, role, failure_before_start(error))
            )
            return None
        info = result.model_info
        remark = self._record_setting(result)
        figures = self._figures(folder, result.positions)
        has_kld = not engine_of(spec).is_server or result.likeliest > 0
        base = self._stored.get(self._plan.reference.label)
        scored = ScoredRecord(
            label=spec.label,
            role=role,
            model_info=info,
            note="; ".join(filter(None, (note, remark))),
            perplexity=figures.perplexity,
            divergence=figures.divergence_from(base.figures, base.name)
            if base and has_kld
            else None,
            weights=result.weights,
            seconds=result.seconds,
        )
        self._store(role, spec, figures)
        if role != "floor" and has_kld:
            self._compare_pair(spec.label, figures)
        self._finish(role, spec, scored)
        return info

    def _finish(self, role: Role, spec: AnyVariant, scored: ScoredRecord) -> None:
        self.models.append(scored)
        if role != "floor":
            self._unread.remove(spec.label)
        self._jobs.on_model(spec.label, None)

    def _job(self, role: Role, spec: AnyVariant, load: LoadModel, folder: Path) -> ScoreJob:
        plan, setting = self._plan, self._setting
        return ScoreJob(
            load=load,
            text=str(plan.corpus.path),
            window=setting.window if setting else plan.window,
            stride=setting.stride if setting else plan.stride,
            fit=self._fit() if plan.fit and setting is None else None,
            depths=plan.depths,
            workspace=Workspace(str(folder), str(folder), threads=threads_for(1)),
            tokens=plan.tokens,
            ids_sha256=setting.ids_sha256 if setting else "",
            against={read.name: str(read.logits) for read in self._stored.values()},
            keep="forecasts" if self._is_stored(role, spec) else "",
            windows=str(self._folder / "0" / "windows") if engine_of(spec).is_server else "",
            copies=2 if plan.pair and role == "reference" and not self._in_pair(spec) else 1,
        )

    def _fit(self) -> Fit:
        """Return what the first job needs to choose the window, which all models then use."""
        specs = [self._plan.reference, *self._others]
        eager = any(getattr(spec, "attention", "") == "eager" for spec in specs)
        floor = self._plan.floor == "attention" and engine_of(specs[0]).selects_attention
        return Fit(memory=MemoryLimits().usable().available, eager=eager or floor)

    @property
    def window(self) -> int:
        """Tokens that each model reads at a time."""
        return self._setting.window if self._setting else self._plan.window

    def _figures(self, folder: Path, positions: int) -> Figures:
        """Return the figures in `folder` of a model that scored `positions` tokens."""
        setting = self._setting
        assert setting is not None  # noqa: S101  # the first scored model has set it
        windows = positions // (setting.window - setting.context)
        return Figures(folder, windows, tuple(setting.depth_ends))

    def _in_pair(self, spec: AnyVariant) -> bool:
        return spec.label in (self._first, self._second)

    def _is_stored(self, role: Role, spec: AnyVariant) -> bool:
        """Return whether to store the logits of `spec`, because later models are compared with it.

        These are the logits of the reference and, unless the reference is one of the first two
        variants, those of the first variant.
        """
        first = spec.label == self._first and not self._in_pair(self._plan.reference)
        stored = not engine_of(spec).is_server  # a server reports only the likeliest tokens
        return role == "reference" or (role == "variant" and first and stored)

    def _record_setting(self, result: ScoreResult) -> str:
        """Record the setting from the first result; return a note for the user on this result.

        The note says that a server's figures are limited or that a tokenizer differs; else empty.
        """
        plan, tokenizer_hash = self._plan, result.model_info.tokenizer_hash
        if self._setting is None:
            window = result.window
            stride = min(plan.stride, window)
            scored = window - result.context
            ends = depth_ends(1, window) if plan.depths and stride == window else ()
            self._setting = SettingRecord(
                text=plan.corpus.name,
                text_sha256=plan.corpus.sha256,
                window=window,
                window_limit=result.window_limit or plan.window_limit,
                stride=stride,
                tokenizer_hash=tokenizer_hash,
                tokens=result.tokens,
                positions=result.positions,
                context=result.context,
                begin=result.begin,
                ids_sha256=result.ids_sha256,
                vocabulary=result.vocabulary,
                passages=passages(result.positions // scored, scored),
                depth_ends=list(ends),
            )
        if result.likeliest >= 0:
            return _server_note(result.likeliest)
        if tokenizer_hash != self._setting.tokenizer_hash:
            return "another tokenizer, which cuts this text into the same tokens"
        return ""

    def _store(self, role: Role, spec: AnyVariant, figures: Figures) -> None:
        if not self._is_stored(role, spec):
            return
        stored = _StoredLogits(str(len(self._stored)), figures)
        self._stored[spec.label] = stored
        if role == "reference":
            error = figures.read("kept")
            self._storage = StorageRecord(
                form=FORM,
                bytes=stored.logits.stat().st_size,
                kld_mean=float(error.mean()),
                kld_max=float(error.max()),
            )

    def _compare_pair(self, label: str, figures: Figures) -> None:
        """Compare the first two variants in both directions, once both are scored.

        `label` and `figures` belong to the variant that was scored last.
        """
        other = {self._first: self._second, self._second: self._first}.get(label, "")
        if (stored := self._stored.get(other)) is None:
            return
        forward = PairRecord(
            seen_from=other,
            variant=label,
            divergence=figures.divergence_from(stored.figures, stored.name),
        )
        backward = PairRecord(
            seen_from=label,
            variant=other,
            divergence=figures.divergence_of(stored.figures, stored.name),
        )
        self._pair = [forward, backward] if other == self._first else [backward, forward]


def _server_note(likeliest: int) -> str:
    """Return the note on a server that reports the `likeliest` most likely tokens per position."""
    if not likeliest:
        return "no KLD: the server reports only the log-probability of the text's own tokens"
    return (
        f"the server reports the {likeliest} likeliest tokens of each position, all others count as"
        " one: its KLD is a lower bound"
    )
