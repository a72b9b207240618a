"""Command line of the package: ``proportion-ssl``, or ``python -m proportion_ssl``."""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
EXIT_CODES = (
    "Exit status: 0 success; 1 some slides or stages failed, all other results are written; "
    "2 the input, an option or a path is wrong, no results; 130 interrupted. Progress is written to "
    "stderr, results to stdout."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: command-line arguments of the process.

    Returns
    -------
    status : int
        0: success; 1: some slides or stages failed; 2: wrong input; 130: interrupted.
    """
    options = _parser().parse_args(arguments)
    _log_to_stderr()
    try:
        return options.command(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"proportion-ssl: {_reason(error)}", file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt:
        print("proportion-ssl: interrupted; features written so far are kept.", file=sys.stderr)
        return INTERRUPTED


def _reason(error: Exception) -> str:
    """Text of an error; for operating system errors the file and the reason, without the error number."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    return str(error)


def _log_to_stderr() -> None:
    """Log warnings of this package and of Python as one line each, and only errors of large_image."""
    handler = logging.StreamHandler()
    handler.addFilter(_is_worth_showing)
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", handlers=[handler]
    )
    warnings.formatwarning = lambda message, *_, **__: f"WARNING: {message}\n"


def _is_worth_showing(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR or not record.name.startswith("large_image")


# --- options ------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    from proportion_ssl._version import __version__

    parser = argparse.ArgumentParser(
        prog="proportion-ssl",
        description=(
            "Segment whole slides by subtype, trained on a few outlined slides and many slides with "
            "class percentages only."
        ),
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name, command, text):
        one = commands.add_parser(name, help=text, description=text, epilog=EXIT_CODES)
        one.set_defaults(command=command)
        return one

    demo = add("demo", _demo, "Create a synthetic cohort of 32 slides and run all steps on it.")
    _add_run_options(demo)
    check = add(
        "check",
        _check,
        "Open every slide and outline of a cohort and list all problems, without computing anything.",
    )
    check.add_argument("cohort", type=Path, help="manifest: CSV file with one row per slide")
    check.add_argument(
        "--features",
        type=Path,
        metavar="FOLDER",
        help="folder with one feature file per slide from another program, checked instead of the slides",
    )
    _add_record_options(check)
    _add_cohort_options(check)
    run = add(
        "run", _run, "Fit on a cohort, cross-validate, segment its test slides, and write a report."
    )
    run.add_argument("cohort", type=Path, help="manifest: CSV file with one row per slide")
    _add_run_options(run)
    apply = add("apply", _apply, "Segment slides with a fitted model.")
    apply.add_argument(
        "model", type=Path, help="model.segmenter from a run, or a file from SlideSegmenter.save"
    )
    apply.add_argument(
        "slides", type=Path, nargs="+", help="slides, or feature files (.h5, .pt, .npy, .npz)"
    )
    apply.add_argument(
        "--features",
        type=Path,
        metavar="FOLDER",
        help="folder with one feature file per slide from another program, used instead of the slides",
    )
    apply.add_argument(
        "--proportions",
        type=Path,
        metavar="CSV",
        help=(
            "recorded percentages to use in the predictions: CSV file with a column 'slide' (file name) "
            "and one column per class"
        ),
    )
    _add_error_options(apply)
    apply.add_argument(
        "--mpp", type=float, help="microns per pixel of slides without this information"
    )
    apply.add_argument(
        "--stride",
        type=int,
        help="step between windows in pixels; steps smaller than the patch give finer maps",
    )
    apply.add_argument(
        "--weights",
        type=Path,
        help="weights of the embedder, for a model saved without its network",
    )
    _add_privacy_options(apply)
    _add_output_options(apply, "segmented")
    embed = add(
        "embed",
        _embed,
        "Compute the features of slides, one HDF5 file per slide; can be interrupted and resumed.",
    )
    embed.add_argument("slides", type=Path, nargs="+", help="slide files")
    embed.add_argument(
        "--mpp", type=float, help="microns per pixel of slides without this information"
    )
    _add_patch_options(embed)
    _add_output_options(embed, "features")
    return parser


def _add_record_options(parser) -> None:
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help=(
            "columns of the manifest that are classes; default: all except slide, role, annotation, mpp, "
            "case and predominant"
        ),
    )
    _add_error_options(parser)


def _add_error_options(parser) -> None:
    parser.add_argument(
        "--rounding-step",
        type=float,
        metavar="FRACTION",
        help="recorded percentages were rounded to multiples of this; 0.05 means 5 percentage points",
    )
    parser.add_argument(
        "--standard-deviation",
        type=float,
        metavar="FRACTION",
        help="standard deviation of the recorded percentages; 0.1 means 10 percentage points",
    )


def _add_cohort_options(parser) -> None:
    parser.add_argument(
        "--magnifications",
        type=float,
        nargs="+",
        default=[10, 5, 2.5],
        metavar="X",
        help="magnifications; patches are adjacent at the first one (default: 10 5 2.5)",
    )
    parser.add_argument(
        "--patch-size",
        type=int,
        default=224,
        metavar="PIXELS",
        help="side length of a patch (default: 224)",
    )
    parser.add_argument(
        "--min-tissue",
        type=float,
        default=0.25,
        metavar="SHARE",
        help="minimum fraction of tissue in a patch (default: 0.25)",
    )
    parser.add_argument(
        "--tissue-masks",
        type=Path,
        metavar="FOLDER",
        help="your own tissue masks, NAME.png for slide NAME.svs; non-zero pixels are tissue",
    )


def _add_patch_options(parser) -> None:
    _add_cohort_options(parser)
    parser.add_argument(
        "--weights",
        type=Path,
        help="state dict of torchvision's mobilenet_v2; default: ImageNet weights, downloaded once",
    )
    parser.add_argument(
        "--no-normalization", action="store_true", help="do not normalize the colors of the slides"
    )


def _add_privacy_options(parser) -> None:
    parser.add_argument(
        "--anonymize",
        action="store_true",
        help=(
            "replace the names of slides and cases by numbers in all output; the key is written to "
            "FOLDER_key.csv beside the output folder"
        ),
    )
    parser.add_argument(
        "--reject-below",
        type=float,
        metavar="PROBABILITY",
        help="label map cells 'uncertain' if their largest probability is below this",
    )


def _add_output_options(parser, default: str) -> None:
    parser.add_argument(
        "--output", type=Path, default=Path(default), metavar="FOLDER", help=f"default: {default}"
    )
    parser.add_argument(
        "--jobs",
        type=_jobs,
        default=None,
        help="slides or folds processed in parallel; -1: one per core (default: 1)",
    )


def _jobs(text: str) -> int:
    if int(text) == 0:
        raise argparse.ArgumentTypeError("must be -1, or 1 or more; got 0")
    return int(text)


def _add_run_options(parser) -> None:
    _add_record_options(parser)
    _add_patch_options(parser)
    parser.add_argument(
        "--system",
        default="robust",
        choices=["robust", "published", "supervised"],
        help="system that is saved and segments the slides (default: robust, which also lists doubtful "
        "records)",
    )
    parser.add_argument(
        "--compare",
        nargs="*",
        default=["supervised", "published", "robust"],
        metavar="SYSTEM",
        help="systems to compare (default: all three)",
    )
    parser.add_argument("--no-cv", action="store_true", help="no cross-validation")
    parser.add_argument(
        "--folds", type=int, default=5, help="cross-validation folds, by case (default: 5)"
    )
    parser.add_argument(
        "--stride",
        type=int,
        help="step between windows of the maps in pixels; steps smaller than the patch give finer maps",
    )
    parser.add_argument(
        "--features",
        type=Path,
        metavar="FOLDER",
        help=(
            "folder for features (default: features in the output folder), or a folder with one feature "
            "file per slide from TRIDENT, CLAM, STAMP or slideflow, used instead of the slides"
        ),
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="random seed of the classifiers and of a synthetic cohort (default: 0)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="allow writing to a folder that contains another run",
    )
    _add_privacy_options(parser)
    _add_output_options(parser, "segmentation")


# --- commands -----------------------------------------------------------------------------------


def _demo(options) -> int:
    from proportion_ssl.datasets import make_slides
    from proportion_ssl.embedding import (
        PatchEmbedder,
        RandomFilterFeatures,
        WeightsNotAvailableError,
    )

    folder = options.output / f"synthetic_cohort_{options.seed}"
    manifest = folder / "cohort.csv"
    n_jobs = -1 if options.jobs is None else options.jobs
    if not manifest.exists():
        print("synthetic slides ...", file=sys.stderr, flush=True)
        make_slides(folder, random_state=options.seed, n_jobs=n_jobs, verbose=True, overwrite=True)
    embedder = PatchEmbedder(weights=_weights(options))
    try:
        with contextlib.redirect_stdout(sys.stderr):  # torch prints its downloads
            embedder.fingerprint()
    except WeightsNotAvailableError as error:
        reason = str(error).split("(")[0].strip()
        print(
            "No ImageNet weights (no network and no --weights): this demonstration uses RANDOM FILTERS as "
            f"features, which reduces accuracy. ({reason})",
            file=sys.stderr,
        )
        embedder = PatchEmbedder(module=RandomFilterFeatures())
    options.jobs = n_jobs
    return _run_job(manifest, embedder, options)


def _run(options) -> int:
    from proportion_ssl.embedding import PatchEmbedder

    return _run_job(options.cohort, PatchEmbedder(weights=_weights(options)), options)


def _weights(options) -> str:
    return "imagenet" if options.weights is None else str(options.weights)


def _run_job(manifest: Path, embedder: Any, options) -> int:
    from proportion_ssl.segmenter import SlideSegmenter
    from proportion_ssl.segmenter.run import RunOptions, run_cohort_job

    segmenter = SlideSegmenter(
        embedder=embedder,
        magnifications=tuple(options.magnifications),
        patch_size=options.patch_size,
        stride=options.stride,
        normalizer=None if options.no_normalization else "default",
        min_tissue=options.min_tissue,
        tissue_mask=_masks(options.tissue_masks),
        n_jobs=options.jobs,
        random_state=options.seed,
        verbose=True,
    )
    result = run_cohort_job(
        manifest,
        segmenter,
        RunOptions(
            output=options.output,
            system=options.system,
            compare=options.compare,
            folds=0 if options.no_cv else options.folds,
            seed=options.seed,
            classes=options.classes,
            rounding_step=options.rounding_step,
            standard_deviation=options.standard_deviation,
            features=options.features,
            overwrite=options.overwrite,
            anonymize=options.anonymize,
            reject_below=options.reject_below,
        ),
    )
    _print_run(result, options)
    return FAILED if result.problems else DONE


def _print_run(result, options) -> None:
    from proportion_ssl.segmenter.run import MODEL, mean_and_spread

    print(f"{result.segmenter.n_slides_} slides, {result.segmenter.n_patches_} patches")
    print(f"Features: {result.segmenter.features_}")
    if len(result.cross_validation):
        print("\nCross-validation over outlined cases (mean +- sd over folds)")
        print(mean_and_spread(result.cross_validation).to_string())
    if len(result.scores):
        print("\nTest slides (patches of all slides pooled; 95% intervals over cases)")
        print(result.scores.round(3).to_string())
    if len(result.comparisons):
        print("\nDifferences between systems (paired by case, p values Holm-corrected)")
        shown = ["score", "system", "reference", "difference", "low", "high", "p_adjusted"]
        print(result.comparisons[shown].round(3).to_string(index=False))
    if result.segmentations:
        print("\nTest slides")
        _print_percentages(result.segmentations)
    for problem in result.problems:
        print(f"Problem: {problem}", file=sys.stderr)
    seconds = ", ".join(f"{stage} {taken:g}" for stage, taken in result.seconds.items())
    print(f"\nSeconds: {seconds}")
    print(
        f"Open {options.output / 'report.html'} in a browser; new slides: proportion-ssl apply "
        f"{options.output / MODEL} SLIDE"
    )


def _print_percentages(segmentations) -> None:
    import pandas as pd

    is_recorded = any(one.recorded is not None for one in segmentations.values())
    rows = {}
    for name, one in segmentations.items():
        shares = [one.proportions]
        if is_recorded:
            unknown = one.proportions * float("nan")
            shares.append(unknown if one.recorded is None else one.recorded["share"])
        rows[name] = {
            label: " / ".join("-" if share != share else f"{100 * share:.0f}" for share in pair)
            for label, *pair in zip(one.proportions.index, *shares, strict=True)
        }
    table = pd.DataFrame(rows).T.rename_axis("slide")
    print(f"Percent of the tumor, predicted{' / recorded' * is_recorded}")
    print(table.to_string())
    if used := [name for name, one in segmentations.items() if one.used_record]:
        print(f"Predicted with its record, so not an independent test: {', '.join(used)}")


def _check(options) -> int:
    from proportion_ssl.segmenter.check import check_cohort

    found = check_cohort(
        options.cohort,
        features=options.features,
        classes=options.classes,
        rounding_step=options.rounding_step,
        standard_deviation=options.standard_deviation,
        magnification=options.magnifications[0],
        patch_size=options.patch_size,
        min_tissue=options.min_tissue,
        tissue_mask=_masks(options.tissue_masks),
    )
    print(found)
    return FAILED if found.fatal else DONE


def _apply(options) -> int:
    from proportion_ssl.segmenter import SlideSegmenter

    _check_slides(options.slides, options.mpp, needed=options.features is None)
    embedder = None
    if options.weights is not None:
        from proportion_ssl.embedding import PatchEmbedder

        embedder = PatchEmbedder(weights=_weights(options))
    segmenter = SlideSegmenter.load(options.model, embedder=embedder)
    segmenter.set_params(n_jobs=options.jobs, verbose=True)
    if options.stride is not None:
        segmenter.set_params(stride=options.stride)
    records = None
    if options.proportions is not None:
        from proportion_ssl.segmenter.records import read_records

        records = read_records(
            options.proportions,
            segmenter.classes_,
            rounding_step=options.rounding_step,
            standard_deviation=options.standard_deviation,
        )
        _check_names(records, options)
    slides = options.slides
    if options.anonymize:
        slides, records = _numbered(slides, records, options.output)
    if options.features is not None:
        from proportion_ssl.segmenter.run import say_of_new_folder

        say_of_new_folder(options.features)
    run = segmenter.segment_cohort(
        slides,
        options.output,
        features=options.features,
        proportions=records,
        mpp=options.mpp,
        reject_below=options.reject_below,
    )
    if run.results:
        _print_percentages(run.results)
        print(f"Features: {segmenter.features_}")
        is_drawn = any(one.overview is not None for one in run.results.values())
        written = f"Label maps, {'overlays, ' * is_drawn}outlines for QuPath and slides.csv"
        print(f"{written} are in {options.output}")
    for failure in run.failures.values():
        print(f"Problem: {failure}", file=sys.stderr)
    return FAILED if run.failures else DONE


def _check_slides(paths, mpp, *, needed: bool = True) -> None:
    """Raise if a slide does not exist or has a resolution that differs from the given one."""
    from proportion_ssl.slides import open_slide

    missing = [path for path in paths if not path.exists()]
    if needed and missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise FileNotFoundError(f"file not found: {', '.join(map(str, missing[:5]))}{more}.")
    folders = [path for path in paths if path.is_dir()]
    if needed and folders:
        raise ValueError(f"{folders[0]} is a folder; give its slides, such as {folders[0]}/*.svs.")
    for path in paths if mpp is not None else ():
        try:
            with open_slide(path) as slide:
                stated = slide.mpp
        except (
            OSError,
            ValueError,
            ImportError,
        ):  # no resolution in the file, or it fails later with its own reason
            continue
        if not math.isclose(stated, mpp, rel_tol=0.02):
            raise ValueError(
                f"{path} states {stated:.4g} microns per pixel, but --mpp is {mpp:g}; use --mpp only for "
                "slides without this information."
            )


def _check_names(records, options) -> None:
    """Print the slides without a record; raise if no slide has one, as with a table of other slides."""
    names = [path.stem for path in options.slides]
    missing = [name for name in names if name not in records]
    if len(missing) == len(names):
        raise ValueError(
            f"{options.proportions} has no record of {', '.join(missing[:5])}; it has records of "
            f"{', '.join(list(records)[:5]) or 'no slide'}. Put the file names of the slides into its "
            "column 'slide'."
        )
    if missing:
        print(f"Without a record: {', '.join(missing)}", file=sys.stderr)


def _numbered(slides, records, output):
    """Replace slide names by numbers in slides and records; write the key beside the output folder."""
    from proportion_ssl.segmenter.anonymous import numbers, write_key
    from proportion_ssl.slides.features.batch import named_slides

    paths = named_slides(slides)
    number = numbers(paths, "slide")
    write_key(output, list(number), list(number.values()))
    records = {number[name]: record for name, record in (records or {}).items() if name in number}
    return {number[name]: path for name, path in paths.items()}, records


def _embed(options) -> int:
    from proportion_ssl.embedding import PatchEmbedder
    from proportion_ssl.slides import embed_slides

    if not options.no_normalization:
        raise ValueError(
            "color normalization needs a reference slide from a cohort: add --no-normalization to embed "
            "slides without it, or use 'run', which embeds a cohort and keeps the features."
        )
    _check_slides(options.slides, options.mpp)
    names = [path.stem for path in options.slides]
    masks = _masks(options.tissue_masks) or {}
    run = embed_slides(
        options.slides,
        PatchEmbedder(weights=_weights(options)),
        options.output,
        magnification=options.magnifications,
        size=options.patch_size,
        min_fraction=options.min_tissue,
        tissue_mask={name: masks[name] for name in names if name in masks},
        mpp=None if options.mpp is None else dict.fromkeys(names, options.mpp),
        on_error="skip",
        n_jobs=options.jobs,
        verbose=True,
    )
    for name, path in run.results.items():
        print(f"{name}\t{path}")
    for failure in run.failures.values():
        print(f"Problem: {failure}", file=sys.stderr)
    return FAILED if run.failures else DONE


def _masks(folder: Path | None) -> dict[str, Path] | None:
    if folder is None:
        return None
    if not folder.is_dir():
        raise FileNotFoundError(f"folder of tissue masks not found: {folder}.")
    found = {path.stem: path for path in sorted(folder.glob("*.png"))}
    if not found:
        raise FileNotFoundError(
            f"{folder} contains no PNG files; name the mask of slide NAME.svs NAME.png."
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
