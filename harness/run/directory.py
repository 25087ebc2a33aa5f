"""Begin or open a run in a run directory: check its configuration, and repair its store.

A run directory contains:

config.yaml  provenance.json  lock  masks.zarr/  log/  evaluations/  queries/  reservoir/
recovery/  allocation/  failures/
"""

import logging
from dataclasses import replace

from harness.config.checks import must_be
from harness.config.identity import differences, from_yaml, to_yaml
from harness.config.names import AUTO, DESCENT
from harness.config.options import resolved_options
from harness.config.schema import Config, is_streamed
from harness.data.dataset import Dataset
from harness.errors import UserError
from harness.places.durable import remove_partial_files, write_durably
from harness.places.places import Place, remove_tree
from harness.places.reading import check_folders
from harness.plan.checkpoints import num_leading
from harness.plan.device import device_type
from harness.plan.resolve import resolve, resolve_block, resolve_checkpoints, resolve_evaluation
from harness.run.content import store_content
from harness.run.dataset import dataset_of
from harness.run.memory import check_memory
from harness.run.products import Call, ProductRates, here, measured_rates
from harness.run.provenance import record_rates, record_start
from harness.run.refusals import check_room
from harness.run.run import Run
from harness.run.same_tasks import family_errors, warn_of_equal_tasks
from harness.run.seen import allocation_parts, seen_tasks
from harness.run.shared import kept_checkpoints
from harness.run.spec import RunSpec
from harness.storage.arrays import store_exists
from harness.storage.compare import check_store
from harness.storage.content import StoreContent
from harness.storage.create import create_store
from harness.storage.repair import Damage
from harness.storage.store import MaskStore
from harness.tables.files import table_files
from harness.tables.schemas import FOLDERS

logger = logging.getLogger("harness")


def open_trained(directory: Place, config: Config, data: Dataset, call: Call = here) -> Run:
    """Begin a run, or continue the run in the directory.

    When a run begins, it replaces each `auto` by a value, and stores the value.

    Args:
        directory: the run directory. This process holds its lock.
        config: the configuration as typed.
        data: the data set that the configuration names.
        call: a function that calls another function on a machine that trains. It is used to measure
            the matrix products.

    Raises:
        UserError: the directory has another configuration, or a store that does not match the
            configuration. Or the directory cannot be written, or its disk has too little free
            space.
    """
    _check_folders(directory)
    known = directory / "config.yaml"
    begins, rates = not known.exists(), None
    if begins:
        _clear_unbegun(directory)
        typed = resolved_options(config)
        probe = RunSpec(typed, data.input_shape, data.num_classes)
        device = _device(typed, call)
        resolved = resolve(typed, probe.capabilities, bfloat16_is_faster=False, device=device)
    else:
        resolved = _configuration(known, config)
    spec = RunSpec(resolved, data.input_shape, data.num_classes)
    check_memory(resolved, spec.layout, trains=True)
    content = store_content(spec, data)
    if store_exists(directory):
        with family_errors(resolved.family):
            check_store(directory, content)
    else:
        check_room(directory, content.num_bytes)
        with family_errors(resolved.family):
            warn_of_equal_tasks(spec)
        # `auto` is resolved once and stored with the run. The type of the products depends on a
        # machine that trains at this start, and the run keeps this type on other machines. The
        # measurement may start Ray, so the refusals come first.
        if begins and (rates := measured_rates(probe, call)) and rates.bfloat16_is_faster:
            resolved = resolve(typed, probe.capabilities, bfloat16_is_faster=True, device=device)
            spec = RunSpec(resolved, data.input_shape, data.num_classes)
            content = store_content(spec, data)
        # The store lists the inputs that define each task. So `create_store` makes every task of
        # the run, and a family that cannot make one of these tasks is refused.
        with family_errors(resolved.family):
            create_store(directory, content)
    # config.yaml is written last, so that a directory with a config.yaml always has a store.
    if begins:
        write_durably(known, to_yaml(resolved).encode())
    return _ready(directory, spec, content, rates, data.licence)


def _device(config: Config, call: Call) -> str:
    """Return the kind of device that trains a new run.

    Raises:
        UserError: the user asks for a GPU, and no training actor has one.
    """
    if is_streamed(config):
        found = "cpu"  # FollowWorker trains on the CPU
    elif config.train.device == "cpu":
        return "cpu"
    else:
        found = call(device_type)
    if config.train.device not in (AUTO, found):
        raise must_be(
            "train.device",
            f"auto or {found}, because no training actor has a GPU",
            config.train.device,
            "train.device=auto",
        )
    return found


def open_evaluated(directory: Place, config: Config, data: Dataset, call: Call = here) -> Run:
    """Open a run for other evaluations. Its masks are only read.

    Args:
        directory: the run directory. This process holds its lock.
        config: the run's configuration, in which some values are those of this start: the
            evaluation settings, and the keys that change no result.
        data: the data set that the configuration names.
        call: not used, because the stored configuration has no `auto` that needs a measurement.

    Raises:
        UserError: the store does not match the configuration, or a mask of a checkpoint is not
            committed.
    """
    _check_folders(directory)
    stored = from_yaml(directory / "config.yaml")
    spec = RunSpec(stored, data.input_shape, data.num_classes)
    with family_errors(stored.family):
        check_store(directory, store_content(spec, data))
    store = MaskStore.open(directory, read_only=True)
    checkpoints = _committed_checkpoints(directory, store, config)
    if spec.capabilities.trains_weights:
        checkpoints = kept_checkpoints(spec, store, config, checkpoints)
    record_start(directory, stored, data.licence)
    evaluate = resolve_evaluation(config.evaluate, spec.capabilities)
    asked = replace(
        config,
        evaluate=replace(evaluate, checkpoints=checkpoints),
        reservoir=resolve_block(config.reservoir, spec.layout.num_bits),
    )
    check_memory(asked, spec.layout, trains=False)
    run = Run(directory, replace(spec, config=asked), store, stored.evaluate, read_only=True)
    _make_table_folders(run)
    return run


def _committed_checkpoints(directory: Place, store: MaskStore, config: Config) -> list[int]:
    """Return the checkpoints to evaluate, with `auto` resolved.

    Raises:
        UserError: the log is damaged, or a mask of a checkpoint is not committed.
    """
    go_on = "continue the run with harness/scale.py"
    try:
        committed = set(store.tasks(["task_id"])["task_id"].to_pylist())
        parts = allocation_parts(directory / "allocation", store.run_id)
        largest = num_leading(seen_tasks(config, committed, parts))
    except ValueError as error:
        raise UserError(f"{error}: {go_on}, which repairs the log") from error
    if not largest:
        raise UserError(f"run directory {directory} holds no mask of task 0 yet: {go_on}")
    checkpoints = resolve_checkpoints(config.evaluate.checkpoints, largest)
    if wrong := [k for k in checkpoints if k > largest]:
        raise UserError(
            f"evaluate.checkpoints must lie in [1, {largest}], because only the first {largest} "
            f"masks are committed without a gap, got {wrong}: try "
            f"evaluate.checkpoints=[{largest}], or {go_on}"
        )
    return checkpoints


def _configuration(known: Place, wanted: Config) -> Config:
    """Read the configuration with which a run began.

    Raises:
        UserError: the wanted configuration would give other results.
    """
    stored = from_yaml(known)
    if found := differences(stored, wanted):
        raise UserError(
            f"run directory {known.parent} holds another configuration: {'; '.join(found)}: "
            "choose another run_dir, or type the values that the run began with"
        )
    return stored


def verify_run(directory: Place) -> list[Damage]:
    """Check the whole store of a run, without changing a file. Each start makes the same checks.

    Returns:
        A list of the damaged files; [] if everything is intact.

    Raises:
        UserError: the directory has no configuration or no store, the store does not match the
            configuration, or the data set is not on this machine.
    """
    config = from_yaml(directory / "config.yaml")
    data = dataset_of(config)
    content = store_content(RunSpec(config, data.input_shape, data.num_classes), data)
    with family_errors(config.family):
        check_store(directory, content)
    return MaskStore.open(directory, read_only=True).verify(content.fixed_names)


def _ready(
    directory: Place, spec: RunSpec, content: StoreContent, rates: ProductRates | None, licence: str
) -> Run:
    """Clean up after crashes, repair damaged files, and open the run."""
    remove_partial_files(directory)
    record_start(directory, spec.config, licence)
    if rates is not None:
        record_rates(directory, rates)
    store = MaskStore.open(directory)
    _mend(store, content)
    run = Run(directory, spec, store, spec.config.evaluate)
    _make_table_folders(run)
    return run


def _check_folders(directory: Place) -> None:
    """Refuse a run directory in which a folder is a link or a file.

    Raises:
        UserError: a folder to which a run writes is no folder.
    """
    check_folders(directory / name for name in ("masks.zarr", *FOLDERS.values()))


def _make_table_folders(run: Run) -> None:
    """Make the folders of the result tables, and remove partial files that crashes left."""
    tables = ["evaluations", "queries"]
    if run.spec.config.evaluate.reservoir:
        tables.append("reservoir")
        if DESCENT in run.spec.config.reservoir.cues:
            tables.append("recovery")
    if is_streamed(run.spec.config):
        tables.append("allocation")
    for folder in map(run.folder, tables):
        folder.mkdir(exist_ok=True)
        remove_partial_files(folder)


def _clear_unbegun(directory: Place) -> None:
    """Remove the empty store that remains if the first start of a run was interrupted.

    Such a start ended before it wrote config.yaml. The present start may have another
    configuration, which would not match the old store.

    Raises:
        UserError: the store holds masks.
    """
    store = directory / "masks.zarr"
    if table_files(directory / "log") or (store / "masks" / "c").exists():
        raise UserError(
            f"run directory {directory} holds masks but no config.yaml: "
            "put config.yaml back, or choose another run_dir"
        )
    if store.exists():
        remove_tree(store)


def _mend(store: MaskStore, content: StoreContent) -> None:
    """Find damaged files, log them, and repair the store.

    Every start checks each committed mask against its checksum. If a mask is damaged, it is removed
    from the store, and is trained again with its block. Training the whole block gives the same
    mask again, bit for bit.
    """
    damage = store.verify(content.fixed_names)
    for found in damage:
        lost = f"; training again: tasks {_listed(found.task_ids)}" if found.task_ids else ""
        logger.warning("damaged: %s %s%s", found.path, found.reason, lost)
    if damage:
        store.repair(damage, content)


def _listed(task_ids: tuple[int, ...]) -> str:
    return ", ".join(map(str, task_ids))
