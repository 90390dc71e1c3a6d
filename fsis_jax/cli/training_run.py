"""What `fsis train` and `fsis evaluate` do: a config, changes to it, the folder of the run."""

import argparse
import importlib.util
import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from fsis_jax.checkpoints.config_file import read_config
from fsis_jax.checkpoints.learnt import Learnt
from fsis_jax.checkpoints.runs import CHECKPOINTS
from fsis_jax.cli.spelling import suggestion
from fsis_jax.cli.streams import say
from fsis_jax.config_check import check_config
from fsis_jax.data.closed_set import class_ids
from fsis_jax.data.episodes import has_reference
from fsis_jax.data.from_config import open_split, seen_and_unseen
from fsis_jax.errors import FsisError
from fsis_jax.evaluation.baselines import predict_otsu_watershed
from fsis_jax.evaluation.mosaics import Mosaics
from fsis_jax.evaluation.outcomes import save_overlays
from fsis_jax.evaluation.protocol import (
    format_kinds,
    format_selectivity,
    format_table,
    run_closed_set,
    run_kinds,
    run_protocol,
    run_selectivity,
    write_results,
)
from fsis_jax.evaluation.scores import score, summarise
from fsis_jax.inference.augmentation import variants
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.io.atomic import user_path
from fsis_jax.io.names import WEIGHTS_SUFFIX
from fsis_jax.preprocess.records import Source
from fsis_jax.training.loop import train_and_evaluate

_logger = logging.getLogger(__name__)


def changed_config(path: pathlib.Path, changes: Sequence[str]) -> ConfigDict:
    """The config of a file after `--config.a.b=VALUE ...`, checked."""
    config = _change(_load_config(path), changes)
    check_config(config)
    return config


def _load_config(path: pathlib.Path) -> ConfigDict:
    if path.suffix == ".json":
        return read_config(path)
    spec = importlib.util.spec_from_file_location("fsis_jax_user_config", path)
    if spec is None or spec.loader is None:
        raise FsisError(f"{path}: no Python file; give one like configs/quickstart.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise FsisError(f"{path}: defines no get_config(); write a file like configs/quickstart.py")
    config: ConfigDict = module.get_config()
    return config


def _change(config: ConfigDict, changes: Sequence[str]) -> ConfigDict:
    """The config after `--config.a.b=VALUE ...`, with each value of the type that the key has."""
    for change in changes:
        key = change.removeprefix("--config.").partition("=")[0]
        part: Any = config
        for name in key.split(".") if key != change else ():
            if not isinstance(part, ConfigDict) or name not in part:
                hint = suggestion(name, part if isinstance(part, ConfigDict) else ())
                raise FsisError(f"the config has no key {key!r}; {hint}fsis_jax/config.py lists the keys")
            part = part[name]
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=["fsis", *changes])
        extra = values(["fsis", *changes])[1:]
    except (flags.Error, TypeError, ValueError) as error:
        raise FsisError(f"{' '.join(str(error).split())}; fsis_jax/config.py says what each key takes") from error
    if extra:
        raise FsisError(f"unknown argument {extra[0]!r}; a key of the config is changed by --config.KEY=VALUE")
    return config


def run_train(options: argparse.Namespace) -> None:
    """`fsis train`, of its arguments."""
    train_and_evaluate(changed_config(options.config, options.changes), options.workdir, from_step=options.step)


def run_evaluate(options: argparse.Namespace) -> None:
    """`fsis evaluate`, of its arguments."""
    config, workdir = changed_config(options.config, options.changes), options.workdir
    settings = config.eval
    targets = open_split(config, "test")
    seen, unseen = seen_and_unseen(config, targets)
    # A fold holds out none of the categories of a closed-set detector.
    split = "all" if config.model.classes else settings.split
    named_by_split = {"seen": seen, "unseen": unseen, "all": seen + unseen}[split]
    categories = tuple(category for category in named_by_split if category in targets.categories)
    folder = workdir / "evaluation"
    if settings.otsu:
        predictions = predict_otsu_watershed(targets, categories, max_images=settings.max_images)
        save_overlays(folder / f"otsu-{split}", targets, predictions, categories, settings.overlays)
        results = summarise([score(targets, predictions, categories)])
        _report(folder / f"otsu-{split}.json", config, None, results, format_table)
        return
    named = options.checkpoint
    if options.step is not None:
        named = str(user_path(named or str(workdir)) / CHECKPOINTS / str(options.step))
    model = Segmenter.from_pretrained(named) if named else Segmenter.from_checkpoint(workdir)
    _check_trained(config, model.config, named or str(workdir))
    names = [targets.categories[category] for category in categories]
    if split == "unseen":
        split = _unseen(model.learnt, names, named or str(workdir), allow_seen=options.allow_seen)
    elif split == "seen":
        _check_seen(model.learnt, names, named or str(workdir))
    model = model.with_options(
        variants=variants(flip=settings.flip, scales=settings.scales),
        devices=jax.local_devices() if jax.local_device_count() > 1 else None,
    )
    tested = {"weights": named or str(workdir), "fingerprint": model.fingerprint, "min_score": model.min_score}
    # Results of other weights, or of more looks at each image, do not take the place of the run's.
    prefix = f"{user_path(named).name.removesuffix(WEIGHTS_SUFFIX)}-" if named else ""
    prefix += "augmented-" if model.variants else ""
    if model.names:
        name = f"{prefix}plain-all"
        categories = class_ids(targets.categories, model.names)
        results = run_closed_set(model, targets, categories, settings=settings, overlays=folder / name)
        _report(folder / f"{name}.json", config, tested, results, format_table)
        return
    train = open_split(config, "train")
    if settings.kinds or settings.mosaics or settings.references == "train":
        categories = _with_references(categories, targets, train)
    mosaics = Mosaics(targets, settings.mosaics, seed=config.seed) if settings.mosaics else None
    for shots in settings.shots:
        if settings.kinds:
            told = {"shots": shots, "settings": settings, "seed": config.seed}
            results = run_kinds(model, targets, train, categories, **told)
            _report(folder / f"{prefix}kinds-{split}-{shots}shot.json", config, tested, results, format_kinds)
            continue
        if mosaics is not None:
            name = f"{prefix}mosaics-{split}-{shots}shot"
            results = run_selectivity(
                model, mosaics, train, categories, shots=shots, repeats=settings.repeats, seed=config.seed
            )
            _report(folder / f"{name}.json", config, tested, results, format_selectivity)
            continue
        name = f"{prefix}{split}-{shots}shot-{settings.references}"
        results = run_protocol(
            model,
            targets,
            train,
            categories,
            shots=shots,
            references=settings.references,
            settings=settings,
            seed=config.seed,
            overlays=folder / name,
        )
        _report(folder / f"{name}.json", config, tested, results, format_table)


def _unseen(learnt: Learnt | None, names: Sequence[str], weights: str, *, allow_seen: bool) -> str:
    """The name of a test of unseen kinds, which tells if the model has seen some of them.

    Raises:
        FsisError: it has, and that is not allowed.
    """
    known = [] if learnt is None else learnt.known(names)
    if known and not allow_seen:
        raise FsisError(
            f"{weights} has learnt from {', '.join(known)}: a test of these is none of unseen kinds; give the config "
            "that it was trained with (config.data.fold), --config.eval.split=all, or --allow-seen"
        )
    if not known and (learnt is None or not learnt.complete):
        _logger.warning("%s does not say what it has learnt from: whether these kinds are unseen is not known", weights)
    return "seen-as-unseen" if known else "unseen"


def _check_seen(learnt: Learnt | None, names: Sequence[str], weights: str) -> None:
    """Raise FsisError if a model is known not to have learnt from some of the kinds."""
    if learnt is None or not learnt.complete:
        return
    known = learnt.known(names)
    new = [name for name in names if name not in known]
    if new:
        raise FsisError(
            f"{weights} has not learnt from {', '.join(new)}: a test of these is none of seen kinds; give the config "
            "that it was trained with (config.data.fold), or --config.eval.split=all"
        )


def _with_references(categories: Sequence[int], targets: Source, train: Source) -> tuple[int, ...]:
    """Those of which the training images show a cell; the others are named, and left out.

    Raises:
        FsisError: there are none.
    """
    shown = tuple(category for category in categories if has_reference(train.annotations, category))
    lacking = ", ".join(targets.categories[category] for category in categories if category not in shown)
    if categories and not shown:
        raise FsisError(f"the training images show no cell of {lacking}: there are no references to test with")
    if lacking:
        _logger.warning("left out, since the training images show no cell of them: %s", lacking)
    return shown


def _check_trained(config: ConfigDict, trained: ConfigDict, weights: str) -> None:
    """Raise FsisError if a model was trained for other classes, or another kind of keypoints, than the config says."""
    for key, asked, found in (
        ("model.classes", config.model.classes, trained.model.classes),
        ("model.keypoint_head.kind", config.model.keypoint_head.kind, trained.model.keypoint_head.kind),
    ):
        if asked != found:
            raise FsisError(
                f"config.{key} is {asked!r}, but {weights} was trained with {found!r}: give the config of its run, "
                "--config RUN/config.json"
            )


def _report(
    path: pathlib.Path,
    config: ConfigDict,
    model: dict[str, Any] | None,
    results: dict[str, Any],
    form: Callable[[dict[str, Any]], str],
) -> None:
    write_results(path, config, results, model=model)
    say(form(results))
    say(f"written to {path}")
