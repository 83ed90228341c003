"""A comparison -> words: what its numbers allow one to say, and what they do not."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from finetune.reporting.comparison import Comparison, RunSummary, Tuning
from finetune.reporting.seeds import FEW_SEEDS, OverSeeds, RecipeOverSeeds
from finetune.reporting.tables import interval_cell, interval_text, percent, round_up
from finetune.significance import PairedTest, rows_to_tell_apart


@dataclass(frozen=True)
class Findings:
    """Plain sentences: who is first, how each other run stands to it, and what to keep in mind.

    `over_seeds` says the like of recipes; nothing where none has several seeds.
    """

    verdict: tuple[str, ...]
    against_best: tuple[str, ...]
    cautions: tuple[str, ...]
    over_seeds: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """Those on the runs."""
        return (*self.verdict, *self.against_best, *self.cautions)

    def by_part(self) -> dict[str, tuple[str, ...]]:
        """All of them for comparison.json."""
        parts = asdict(self)
        return parts if self.over_seeds else {name: parts[name] for name in parts if name != "over_seeds"}


def describe_findings(comparison: Comparison) -> Findings:
    """What may be said about `comparison`: by paired tests where the rows' predictions are there, else by intervals."""
    leaders = [run for run in comparison.runs if run.accuracy.value == comparison.runs[0].accuracy.value]
    if comparison.runs[0].accuracy.value is None:
        verdict, against_best = ["No run has a test accuracy, so none is best."], []
    else:
        verdict = _verdict(leaders, comparison)
        tested = sum(run.paired is not None for run in comparison.runs)
        against_best = [_against_best(leaders[0], run, tested) for run in comparison.runs[1:]]
    over_seeds = [] if comparison.over_seeds is None else _describe_seeds(comparison.over_seeds)
    return Findings(tuple(verdict), tuple(against_best), tuple(_cautions(comparison)), tuple(over_seeds))


def listed(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _verdict(leaders: Sequence[RunSummary], comparison: Comparison) -> list[str]:
    names, score = listed([run.name for run in leaders]), interval_text(leaders[0].accuracy)
    if len(leaders) == 1:
        sentences = [f"{names} has the highest test accuracy: {score}."]
    else:
        sentences = [f"{names} share the highest test accuracy: {percent(leaders[0].accuracy.value)}."]
    floors = [run.name for run in leaders if run.is_floor]
    if all(run.is_floor for run in comparison.runs):
        sentences.append("All of these runs are floors: there is no neural model among them.")
    elif len(floors) == len(leaders):
        sentences.append(f"The floor wins: no neural model here has a higher accuracy than {floors[0]}.")
    elif floors:
        sentences.append(f"The floor is not beaten: {listed(floors)} scores as high as the best neural model.")
    return sentences


def _against_best(best: RunSummary, run: RunSummary, tested: int) -> str:
    name = f"{run.name} (a floor)" if run.is_floor else run.name
    if best.accuracy.value is None or run.accuracy.value is None:
        return f"{name} has no test accuracy."
    gap = 100 * (best.accuracy.value - run.accuracy.value)
    standing = f"{name} is {_points(gap)} below {best.name}" if gap else f"{name} has the same accuracy as {best.name}"
    if run.paired is not None:
        return f"{standing}{_told_by_test(best, run, run.paired, tested)}"
    match best.accuracy.overlaps(run.accuracy):
        case True:
            return f"{standing}; the intervals overlap: these rows do not tell them apart."
        case False:
            return f"{standing}; the intervals do not overlap."
        case None:
            return f"{standing}; one of them has no interval, so nothing more can be said."


def _points(gap: float) -> str:
    return f"{f'{gap:.1f}' if gap >= 0.05 else f'{gap:.2f}' if gap >= 0.005 else 'less than 0.01'} points"


def _told_by_test(best: RunSummary, run: RunSummary, test: PairedTest, tested: int) -> str:
    """The rest of the sentence, after the standing: the interval, what McNemar's test says, and what it would take."""
    low, high = (100 * end for end in (test.difference.low, test.difference.high))
    p_value = "p < 0.001" if test.adjusted < 0.001 else f"p = {test.adjusted:.3f}"
    several = f", corrected for {tested} comparisons" if tested > 1 else ""
    rows = (
        f"of the rows that only one has right, {best.name} has {test.first_only:,} and {run.name} {test.second_only:,}"
    )
    said = f" [{low:.1f}, {high:.1f}]: {rows} (McNemar's exact {p_value}{several})"
    if test.is_told_apart():
        return f"{said}, which tells them apart."
    needed = rows_to_tell_apart(test.first_only, test.second_only, test.rows)
    if needed is None:
        return f"{said}; these rows do not tell them apart."
    # At so many rows the test would find it four times in five; fewer say nothing new.
    more = (
        f"some {round_up(needed):,} would, were the difference what it seems"
        if needed > test.rows
        else ("without the correction they might")
    )
    return f"{said}; these {test.rows:,} rows do not tell them apart, {more}."


def _describe_seeds(over_seeds: OverSeeds) -> list[str]:
    """Which recipe is ahead over its seeds, how each other stands to it, and what the numbers are."""
    best, *others = over_seeds.recipes
    leaders = [recipe for recipe in over_seeds.recipes if recipe.accuracy.value == best.accuracy.value]
    if len(leaders) == 1:
        score = interval_cell(best.accuracy)
        lead = f"Over seeds, {_kind(best)} has the highest mean test accuracy: {score}."
    else:
        names = listed([_kind(recipe) for recipe in leaders])
        lead = f"Over seeds, {names} share the highest mean test accuracy: {percent(best.accuracy.value)}."
    if not others:
        lead = f"Over seeds, {_kind(best)} has a mean test accuracy of {interval_cell(best.accuracy)}."
    level = percent(over_seeds.confidence_level, 0)
    paired = ", paired where two recipes are compared, and not corrected for their number" if others else ""
    return [
        lead,
        *(_against_best_recipe(best, recipe) for recipe in others),
        f"These intervals ({level}) are by {over_seeds.bootstrap_samples:,} draws of seeds and of rows{paired}; those "
        "of single runs are of rows alone. The standard errors keep the two apart: how much the mean would move with "
        "other seeds on these rows, and with other rows under these seeds.",
    ]


def _kind(recipe: RecipeOverSeeds) -> str:
    """ "lstm (3 seeds)"."""
    floor = "a floor, " if recipe.is_floor else ""
    return f"{recipe.name} ({floor}{_seeds(len(recipe.runs))})"


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _against_best_recipe(best: RecipeOverSeeds, recipe: RecipeOverSeeds) -> str:
    if recipe.behind is None:
        raise ValueError(f"{recipe.name} was not compared with {best.name}")
    low, high = (100 * end for end in (recipe.behind.low, recipe.behind.high))
    gap = 100 * recipe.behind.value
    standing = f"is {_points(gap)} below" if gap else "has the same mean accuracy as"
    told = "which tells them apart" if recipe.is_told_apart() else "which does not tell them apart"
    return f"{_kind(recipe)} {standing} {best.name} [{low:.1f}, {high:.1f}], {told}."


def _cautions_on_seeds(over_seeds: OverSeeds | None) -> list[str]:
    """What intervals leave out of seeds, and where there are too few of them."""
    said = "reflect the test rows only, not training seeds: the same recipe with another seed may score differently."
    if over_seeds is None:
        return [f"The intervals {said}"]
    drawn = [recipe for recipe in over_seeds.recipes if recipe.is_drawn]
    alone = [*(recipe.name for recipe in drawn if len(recipe.runs) == 1), *over_seeds.left_out]
    few = [f"{recipe.name} has {_seeds(len(recipe.runs))}" for recipe in drawn if len(recipe.runs) < FEW_SEEDS]
    sentences = [f"The intervals of {listed(alone)} {said}"] if alone else []
    if few:
        sentences.append(
            f"One or two seeds say little about seeds, and an interval drawn from so few is too narrow: {listed(few)}."
        )
    if over_seeds.left_out:
        sentences.append(
            f"Without predictions of the test rows, not counted over seeds: {listed(over_seeds.left_out)}."
        )
    if over_seeds.repeated:
        sentences.append(
            f"With the recipe and the seed of another run, not counted over seeds: {listed(over_seeds.repeated)}."
        )
    return sentences


def _cautions(comparison: Comparison) -> list[str]:
    best = comparison.runs[0].accuracy
    overlap = any(best.overlaps(run.accuracy) for run in comparison.runs[1:] if run.paired is None)
    return [
        *_cautions_on_seeds(comparison.over_seeds),
        *(
            [
                "Overlap is a cautious reading: the runs were scored on the same rows, and a paired test can tell runs "
                "apart whose intervals overlap."
            ]
            if overlap
            else []
        ),
        *(
            [
                "The best run was chosen by these same rows: of many runs that are alike one leads by chance, and the "
                "correction, which is for so many comparisons, does not know that."
            ]
            if sum(run.paired is not None for run in comparison.runs) > 1
            else []
        ),
        *_scored_repeatedly(comparison),
        *_leaked_rows(comparison),
        *_unlike_conditions(comparison),
        describe_search({run.name: run.tuning for run in comparison.runs if run.family != "majority"}),
        *(
            f"{run.name}: {run.curve.losses_not_finite} logged training losses were not finite."
            for run in comparison.runs
            if run.curve.losses_not_finite
        ),
    ]


def _scored_repeatedly(comparison: Comparison) -> list[str]:
    return [
        f"{run.name} scored the test split {run.times_scored} times: choices made after the first look can make its "
        "accuracy too good."
        for run in comparison.runs
        if run.times_scored > 1
    ]


def _leaked_rows(comparison: Comparison) -> list[str]:
    leaked = {data.leaked_test_rows_normalized for data in comparison.data}
    if leaked == {0}:
        return []
    if len(leaked) > 1:
        counts = ", ".join(f"{d.leaked_test_rows_normalized:,} for {listed(d.runs)}" for d in comparison.data)
        return [
            "The test rows that also stand among training or validation rows differ between the runs "
            f"({counts}): accuracies without leaked rows are not over the same rows."
        ]
    rows = f"{leaked.pop():,} of {comparison.test_count:,} test rows also stand among the training or validation rows."
    cleaned = [
        (run.without_leaked_rows.metrics["accuracy"].value, run.name)
        for run in comparison.runs
        if run.without_leaked_rows is not None and "accuracy" in run.without_leaked_rows.metrics
    ]
    values = [value for value, _ in cleaned if value is not None]
    if len(values) < len(comparison.runs):
        return [rows]
    first = [name for value, name in cleaned if value == max(values)]
    if comparison.runs[0].name in first:
        return [f"{rows} Without them, the highest accuracy is still that of {comparison.runs[0].name}."]
    return [f"{rows} Without them, the highest accuracy is that of {listed(first)}."]


def describe_search(tunings: Mapping[str, Tuning | None]) -> str:
    """How the values of each run were found: a baseline that nobody tuned, beside a model that was, is a straw man."""
    tuned = {name: tuning for name, tuning in tunings.items() if tuning is not None}
    if not tuned:
        return "No run's values were searched for: each took those of its recipe."
    said = ", ".join(
        f"{name}'s {tuning.field} ({tuning.chosen:.2g}) among {len(tuning.tried)} with {tuning.train_rows:,} training "
        "rows"
        for name, tuning in tuned.items()
    )
    untuned = [name for name in tunings if name not in tuned]
    rest = f" Those of {listed(untuned)} are the recipe's: not the same chance was given to all." if untuned else ""
    return f"Chosen on validation: {said}.{rest}"


def _unlike_conditions(comparison: Comparison) -> list[str]:
    """What differs between the runs beside the model, and so limits what the table means."""
    sentences = []
    trained = {data.splits["train"].rows_fingerprint for data in comparison.data if "train" in data.splits}
    if len(trained) > 1:
        sentences.append("The runs were not trained on the same rows: a difference may come from the data.")
    levels = {run.confidence_level for run in comparison.runs}
    if len(levels) > 1:
        stated = ", ".join(f"{run.name} {percent(run.confidence_level, 0)}" for run in comparison.runs)
        sentences.append(f"The intervals have different confidence levels: {stated}.")
    corrected = [run.name for run in comparison.runs if run.interval_method == "bca"]
    if corrected:
        others = "" if len(corrected) == len(comparison.runs) else f" of {listed(corrected)}"
        sentences.append(
            f"The bootstrap intervals{others} are bias-corrected and accelerated (BCa); those of accuracy are Wilson's."
        )
    machines = {str([run.environment.get(key) for key in ("device", "processor", "threads", "world_size")])
                for run in comparison.runs}  # fmt: skip
    if len(machines) > 1:
        sentences.append("The runs had different devices or thread counts: their speeds do not compare.")
    return sentences
