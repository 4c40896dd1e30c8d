"""The command `lethax predict`. JAX is imported by what needs it."""

import csv
import io
from pathlib import Path
from typing import Any

from lethax.cli import arguments
from lethax.errors import RecipeError
from lethax.files import write_atomic
from lethax.progress import compiling, say
from lethax.text import command_line, counted, shown

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
    model = _model(args)
    from lethax.data import loose

    assert args.query is not None
    found = loose.pictures(args.query, model.inputs.example, lambda *_: None)
    _left_out(args.query, found.left_out)
    with compiling("predicting") as first:
        probabilities = model.probabilities(found.images)
        first()
    from lethax.runs.adapted import unsure

    doubts = unsure(probabilities, args.unsure)
    write_atomic(args.out, _table(found.names, model.classes, probabilities, doubts, args.all))
    say(f"batch norm takes its moments from {_NORMS[model.recipe.net.norm]}")
    if len(found.names) == 1:
        best = int(probabilities[0].argmax())
        doubt = ", unsure" if doubts[0] else ""
        say(f"{shown(found.names[0])}: {shown(model.classes[best])} ({probabilities[0, best]:.2f}{doubt})")
    say(f"written: {shown(args.out)}, {counted(len(found.names), 'picture')}, {int(doubts.sum()):,} unsure")
    if args.save:
        model.save(args.save)
        again = command_line("predict", "--model", args.save, "--query", "FOLDER")
        say(f"written: {shown(args.save)}, the adapted model. To predict with it: {again}")


def _check(args: arguments.Predict) -> None:
    if args.query is None:
        raise RecipeError("predict needs --query, the folder of the pictures to predict.")
    if args.model is not None:
        of_run = {"RUN": args.run, **{f"--{name}": getattr(args, name) for name in _OF_A_RUN}}
        if given := [name for name, value in of_run.items() if value is not None]:
            raise RecipeError(f"--model is a model that is adapted already: leave {' and '.join(given)} out.")
    elif args.run is None or args.support is None:
        raise RecipeError(
            "predict needs a run and labelled pictures, as in: lethax predict RUN --support FOLDER --query FOLDER; "
            "or a model, as in: lethax predict --model FILE --query FOLDER."
        )
    for name, value, least, most in (("unsure", args.unsure, 0, 1), ("ensemble", args.ensemble, 1, 1000)):
        if value is not None and not least <= value <= most:
            raise RecipeError(f"--{name} is {value}; it has to be from {least} to {most}.")


def _model(args: arguments.Predict) -> Any:
    from lethax.data import loose
    from lethax.runs import adapted
    from lethax.runs.folder import open_run

    if args.model is not None:
        return adapted.load_adapted(args.model)
    assert args.run is not None and args.support is not None
    run = open_run(args.run)
    adapted.check(run)
    assert run.inputs is not None
    examples = loose.labelled(args.support, run.inputs.example, lambda *_: None)
    _left_out(args.support, examples.left_out)
    head = args.head or "trained"
    pictures = zip(examples.classes, examples.counts(), strict=True)
    say(f"classes: {', '.join(f'{shown(name, 60)} ({n})' for name, n in pictures)}, with the number of their pictures")
    if len(examples.classes) != run.recipe.episode.way:
        say(f"{shown(args.run)} was trained on {run.recipe.episode.way} classes; for {len(examples.classes)} its last layer "
            f"starts {_HEADS[head]}")  # fmt: skip
    with compiling("adapting") as first:
        model = adapted.adapt_run(run, examples, head=head, norm=args.norm or "support", ensemble=args.ensemble or 1)
        first()
    return model


_HEADS = {
    "trained": "from its trained columns, in order and over again",
    "zero": "from zero",
    "prototypes": "from the mean features of each class",
}


def _left_out(source: Path, reasons: dict[str, str]) -> None:
    if reasons:
        named = "; ".join(f"{shown(name, 80)}: {shown(why, 80)}" for name, why in list(sorted(reasons.items()))[:_SAID])
        more = f"; and {len(reasons) - _SAID:,} more" if len(reasons) > _SAID else ""
        say(f"{shown(source)}: {counted(len(reasons), 'entry')} left out ({named}{more})")


def _table(names: list[str], classes: tuple[str, ...], probabilities: Any, doubts: Any, every: bool) -> str:
    """The predictions as CSV: a row for each picture."""
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
    return text.getvalue()
