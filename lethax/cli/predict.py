"""The command `lethax predict`. JAX is imported by what needs it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lethax.cli import arguments
from lethax.cli.usage import check_output, check_range
from lethax.errors import RecipeError
from lethax.files import write_atomic
from lethax.names import PRETRAINED, PRETRAINED_SIZE
from lethax.progress import compiling, say
from lethax.text import command_line, counted, shown

if TYPE_CHECKING:
    from lethax.data.loose import Labelled, Pictures
    from lethax.runs.adapted import Adapted
    from lethax.runs.plain import Plain

_OF_A_RUN = ("support", "save", "head", "norm", "ensemble")  # options that an adapted model has behind it
_SAID = 3  # of what was left out, the entries that are named
_NORMS = {
    "support": "the support pictures, so that no prediction depends on another",
    "support+1": "the support pictures and the one predicted, so that no prediction depends on another",
    "batch": "all pictures of the query folder, so that each prediction depends on the others",
}


def predict(args: arguments.Predict) -> None:
    """Adapt a run to labelled pictures, or read an adapted model, and write a table of predictions."""
    _check(args)
    from lethax.devices import use_all_cores

    use_all_cores()
    model, found = (_plain if args.backbone else _loaded if args.model else _adapted)(args)
    with compiling("predicting") as first:
        probabilities = model.probabilities(found.images)
        first()
    from lethax.runs.adapted import unsure
    from lethax.runs.plain import Plain

    doubts = unsure(probabilities, args.unsure)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(args.out, _table(found.names, model.classes, probabilities, doubts, args.all))
    say(_about(model))
    if len(found.names) == 1:
        best = int(probabilities[0].argmax())
        doubt = ", unsure" if doubts[0] else ""
        say(f"{shown(found.names[0])}: {shown(model.classes[best])} ({probabilities[0, best]:.2f}{doubt})")
    say(f"written: {shown(args.out)}, {counted(len(found.names), 'picture')}, {int(doubts.sum()):,} unsure")
    if args.save and not isinstance(model, Plain):
        args.save.parent.mkdir(parents=True, exist_ok=True)
        model.save(args.save)
        again = command_line("predict", "--model", args.save, "--query", "FOLDER")
        say(f"written: {shown(args.save)}, the adapted model. To predict with it: {again}")


def _check(args: arguments.Predict) -> None:
    if args.query is None:
        raise RecipeError("predict needs --query, the folder of the pictures to predict.")
    of_backbone = {"--size": args.size, "--classifier": args.classifier}
    if args.backbone is not None:
        others = {
            "RUN": args.run,
            "--model": args.model,
            **{f"--{name}": getattr(args, name) for name in _OF_A_RUN[1:]},
        }
        if given := [name for name, value in others.items() if value is not None]:
            raise RecipeError(f"--backbone predicts without a run: leave {' and '.join(given)} out.")
        if args.support is None:
            raise RecipeError("--backbone needs labelled pictures: name their folder with --support.")
    elif given := [name for name, value in of_backbone.items() if value is not None]:
        both = " and ".join(given)
        are = "is an option" if len(given) == 1 else "are options"
        raise RecipeError(f"{both} {are} of --backbone: add --backbone {PRETRAINED[0]}, or leave {both} out.")
    elif args.model is not None:
        of_run = {"RUN": args.run, **{f"--{name}": getattr(args, name) for name in _OF_A_RUN}}
        if given := [name for name, value in of_run.items() if value is not None]:
            raise RecipeError(f"--model is a model that is adapted already: leave {' and '.join(given)} out.")
    elif args.run is None or args.support is None:
        raise RecipeError(
            "predict needs a run and labelled pictures, as in: lethax predict RUN --support FOLDER --query FOLDER; "
            "or a model, as in: lethax predict --model FILE --query FOLDER; or a pretrained network, as in: lethax predict "
            f"--backbone {PRETRAINED[0]} --support FOLDER --query FOLDER."
        )
    check_output("out", args.out, ".csv")
    check_output("save", args.save, ".safetensors")
    check_range("unsure", args.unsure, 0, 1)
    check_range("ensemble", args.ensemble, 1, 1000)


def _loaded(args: arguments.Predict) -> tuple[Adapted, Pictures]:
    """The adapted model of a file, and the pictures to predict."""
    from lethax.runs.adapted import load_adapted

    assert args.model is not None
    model = load_adapted(args.model)
    return model, _pictures(args, model.inputs.pictures)


def _pictures(args: arguments.Predict, example: Sequence[int]) -> Pictures:
    from lethax.data import loose

    assert args.query is not None
    found = loose.pictures(args.query, example, lambda *_: None)
    _left_out(args.query, found.left_out)
    return found


def _adapted(args: arguments.Predict) -> tuple[Adapted, Pictures]:
    """A run adapted to labelled pictures, and the pictures to predict. All is read before anything is compiled."""
    from lethax.runs import adapted
    from lethax.runs.folder import open_run

    assert args.run is not None and args.support is not None
    run = open_run(args.run)
    example = adapted.check(run).pictures
    examples = _labelled(args, example)
    found, head = _pictures(args, example), args.head or run.recipe.inner.head
    if "inner.head" in run.recipe.used and len(examples.classes) != run.recipe.episode.way:
        usual = f"{run.recipe.episode.way} classes" if run.recipe.episode.way else "episodes of any number of classes"
        say(
            f"{shown(args.run)} was trained on {usual}; for {len(examples.classes)} its last layer starts {_HEADS[head]}"
        )
        if head == "trained" and len(examples.classes) > run.recipe.episode.way:
            say(
                "the layer has fewer columns than there are classes, so the same columns serve again from the first one on"
            )
    elif args.head:
        say(f"the last layer starts {_HEADS[head]}")
    with compiling("adapting") as first:
        model = adapted.adapt_run(
            run,
            examples,
            head=args.head,
            norm=args.norm,
            ensemble=1 if args.ensemble is None else args.ensemble,
        )
        first()
    return model, found


def _labelled(args: arguments.Predict, example: Sequence[int]) -> Labelled:
    """The labelled pictures, of which it is said how many there are."""
    from lethax.data import loose

    assert args.support is not None
    examples = loose.labelled(args.support, example, lambda *_: None)
    _left_out(args.support, examples.left_out)
    pictures = zip(examples.classes, examples.counts(), strict=True)
    say(f"classes: {', '.join(f'{shown(name, 60)} ({n})' for name, n in pictures)}, with the number of their pictures")
    return examples


def _plain(args: arguments.Predict) -> tuple[Plain, Pictures]:
    """A classifier of the features of a pretrained backbone, and the pictures to predict."""
    from lethax import pretrained
    from lethax.runs.plain import plain

    embedder = pretrained.load(str(args.backbone), PRETRAINED_SIZE if args.size is None else args.size)
    example = (embedder.size, embedder.size, 3)
    examples, found = _labelled(args, example), _pictures(args, example)
    with compiling("computing features") as first:
        model = plain(embedder, examples, args.classifier or "prototype")
        first()
    return model, found


def _about(model: Adapted | Plain) -> str:
    """What has to be known of a model to read its predictions."""
    from lethax import pretrained
    from lethax.runs import adapted
    from lethax.runs.plain import DECAY, SHARPNESS, Plain

    if isinstance(model, Plain):
        how = f"probe, decay {DECAY:g}" if model.kind == "probe" else f"nearest prototype, sharpness {SHARPNESS:g}"
        return f"classifier: {how}. {pretrained.caution(model.embedder.name, model.classes)}"
    if model.inputs.origin is not None:
        return pretrained.caution(model.inputs.origin.backbone, model.classes)
    if not adapted.has_norms(model.recipe):
        return "the network has no batch norm, so that no prediction depends on another"
    return f"batch norm takes its moments from {_NORMS[model.recipe.net.norm]}"


_HEADS = {
    "trained": "from its trained columns",
    "zero": "from zero",
    "vector": "from the mean of its trained columns",
    "prototypes": "from the mean features of each class",
}


def _left_out(source: Path, reasons: dict[str, str]) -> None:
    if reasons:
        named = "; ".join(f"{shown(name, 80)}: {shown(why, 80)}" for name, why in list(sorted(reasons.items()))[:_SAID])
        more = f"; and {len(reasons) - _SAID:,} more" if len(reasons) > _SAID else ""
        say(f"{shown(source)}: {counted(len(reasons), 'entry')} left out ({named}{more})")


def _table(names: list[str], classes: tuple[str, ...], probabilities: Any, doubts: Any, every: bool) -> bytes:
    """The predictions as CSV: a row for each picture. Bytes of names that are not UTF-8 appear as escapes."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["file", "class", "probability", "second_class", "margin", "unsure", *(classes if every else ())])
    for name, row, doubt in zip(names, probabilities, doubts, strict=True):
        best, second = row.argsort()[::-1][:2]
        each = [f"{p:.6f}" for p in row] if every else []
        margin = row[best] - row[second]
        rows.writerow(
            [name, classes[best], f"{row[best]:.6f}", classes[second], f"{margin:.6f}", "yes" if doubt else "no", *each]
        )
    return text.getvalue().encode("utf-8", "backslashreplace")
