"""The command `lethax export`. JAX is imported by what needs it."""

from lethax.cli import arguments
from lethax.cli.usage import check_output, check_range
from lethax.errors import RecipeError
from lethax.progress import compiling, say
from lethax.text import in_bytes, shown

_OF_A_RUN = ("way", "head", "norm", "ensemble")  # options that an adapted model has behind it


def export(args: arguments.Export) -> None:
    """Write the program of a run or of an adapted model."""
    _check(args)
    from lethax.runs.adapted import load_adapted
    from lethax.runs.export import check_place, export_adapted, export_run
    from lethax.runs.folder import open_run

    check_place(args.out)  # now, because what takes long comes before it is written
    with compiling("exporting") as first:
        if args.model is not None:
            model = load_adapted(args.model)
            if args.out.suffix == ".onnx" and model.recipe.net.norm == "batch":
                raise RecipeError(
                    f"{shown(args.model)} predicts all pictures together (--norm batch), and ONNX files one by one: adapt it with "
                    "--norm support."
                )
            program = export_adapted(model)
        else:
            assert args.run is not None
            program = export_run(
                open_run(args.run),
                way=args.way,
                head=args.head,
                norm=args.norm,
                ensemble=1 if args.ensemble is None else args.ensemble,
            )
        args.out.parent.mkdir(parents=True, exist_ok=True)
        beside = program.save(args.out)
        first()
    for number, argument in enumerate(program.about["arguments"], 1):
        say(f"argument {number}: {argument}")
    say(f"result: {program.about['result']}")
    say(f"written: {shown(args.out)}, {in_bytes(args.out.stat().st_size)}, and {shown(beside)}, which says the same")


def _check(args: arguments.Export) -> None:
    if (args.run is None) == (args.model is None):
        raise RecipeError(
            "export takes a run, as in: lethax export RUN; or a model, as in: lethax export --model FILE."
        )
    if args.model is not None and (given := [f"--{name}" for name in _OF_A_RUN if getattr(args, name) is not None]):
        raise RecipeError(f"--model is a model that is adapted already: leave {' and '.join(given)} out.")
    check_output("out", args.out, ".stablehlo", ".onnx")
    if args.out.suffix == ".onnx" and args.model is None:
        raise RecipeError(
            "an ONNX file is written of an adapted model: write one with lethax predict RUN … --save FILE, and name it by --model."
        )
    check_range("way", args.way, 2, 1000)
    check_range("ensemble", args.ensemble, 1, 1000)
