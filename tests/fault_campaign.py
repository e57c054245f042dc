"""A campaign of faults against `diet-ray stream`: one fault per run, at a random moment, and what it left.

    make campaign RUNS=110

Every run has a deadline, a reader that looks at the newest memory all along, and is started again after a
fault that ends it. Afterwards the events are counted end to end, and the memories compared with those of an
undisturbed run where the rows were the same.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro
from rich.console import Console

from diet_ray import load_memory
from diet_ray.errors import RunError
from diet_ray.runs.run import Run
from diet_ray.training.checkpoints.manifest import Manifest
from tests.small_cluster import SmallCluster
from tests.stream_log import publish, start, write_log

ROWS, BLOCK_ROWS, FILES = 1_800, 300, 8
DEADLINE_S = 180
STARTS = 4  # of the driver in one run, at most
TMPFS_BYTES = 24 << 20
# With no row too late, every event stays to be counted.
OPTIONS: tuple[str, ...] = ("--stream.keep-every=1", "--stream.lateness=1e9", "--stream.probe-every=3")
# Sums come out alike on the same number of threads only.
OPTIONS += ("--resources.threads=1", "--resources.scorers=1", "--resources.patience=20")
TWO_WORKERS = ("--resources.reference-workers=2",)
FORTY_YEARS_MS = 40 * 365 * 86_400_000

Disturb = Callable[[subprocess.Popen[bytes]], None]


@dataclass
class Outcome:
    fault: str
    seed: int
    at: float  # seconds after the start of the driver
    starts: int = 0
    seconds: float = 0.0
    hung: bool = False
    lost: int = 0
    doubled: int = 0
    identical: bool | None = None  # None: the blocks are cut elsewhere, so memories differ
    looks: int = 0
    bad_looks: list[str] = field(default_factory=list)
    told: str = ""

    @property
    def good(self) -> bool:
        return not (self.hung or self.lost or self.doubled or self.bad_looks or self.identical is False)


class Attempt:
    """One disturbed run: its input, its driver, and the reader."""

    def __init__(self, root: Path, log: pa.Table, cluster: SmallCluster, outcome: Outcome) -> None:
        self.root, self.log, self.cluster, self.outcome = root, log, cluster, outcome
        self.run, self.module, self.options = root / "run", ("pipelines.stream",), OPTIONS
        self.restarted_with: tuple[str, ...] = ()
        self.deadline = DEADLINE_S  # of each start
        self.over = threading.Event()
        self.repair: Callable[[], None] = lambda: None  # after the second driver has ended badly
        for name in ("schema.yaml", "config.yaml"):
            shutil.copy(root.parent / name, root / name)
        (root / "in").mkdir()

    def files(self) -> dict[str, pa.Table]:
        cuts = np.linspace(0, ROWS, FILES + 1).astype(int)
        return {f"{n:04d}.parquet": self.log.slice(a, b - a) for n, (a, b) in enumerate(pairwise(cuts))}

    def publish(self, files: dict[str, pa.Table]) -> None:
        for name, rows in files.items():
            publish(self.root, name, rows)

    def go(self, disturb: Disturb) -> None:
        """Start the driver, disturb it once, and start it again until it ends well."""
        began, reader = time.monotonic(), threading.Thread(target=self._read_on)
        reader.start()
        try:
            while self.outcome.starts < STARTS:
                self.outcome.starts += 1
                driver = start(
                    self.root,
                    self.run,
                    *self.options,
                    block_rows=BLOCK_ROWS,
                    module=self.module,
                    environment=self.cluster.environment,
                )
                if self.outcome.starts == 1:
                    disturb(driver)
                try:
                    if driver.wait(self.deadline) == 0:
                        return
                except subprocess.TimeoutExpired:
                    driver.kill()
                    self.outcome.hung = True
                    return
                if self.outcome.starts == 2:
                    self.repair()
                # Started again it takes what the cluster has then, as its error says.
                self.module, self.options = ("pipelines.stream",), (*OPTIONS, *self.restarted_with)
            self.outcome.hung = True  # it never ended well
        finally:
            self.over.set()
            reader.join()
            self.outcome.seconds = round(time.monotonic() - began, 1)

    def _read_on(self) -> None:
        rows = 0
        while not self.over.wait(0.02):
            try:
                found = load_memory(str(self.run)).num_rows
                assert found >= rows, f"the memory shrank from {rows} to {found} rows"
                rows = found
                self.outcome.looks += 1
            except RunError as none_yet:
                if rows or "has no memory yet" not in str(none_yet):
                    self.outcome.bad_looks.append(str(none_yet))
            except Exception as broken:
                self.outcome.bad_looks.append(f"{type(broken).__name__}: {broken}")

    def check(self, wanted: dict[str, bytes]) -> None:
        run = Run.read(str(self.run))
        try:
            for stage in range(1, run.stage + 1):
                run.verify(stage)
        except RunError as damaged:
            self.outcome.bad_looks.append(str(damaged))
        files = [*self.run.glob("events/*/events.parquet"), *self.run.glob("quarantine/*/late-*.parquet")]
        found = [pq.read_table(file, columns=["event id"])["event id"].to_pylist() for file in files]
        seen = Counter(event for events in found for event in events)
        self.outcome.lost = len(set(self.log["event"].to_pylist()) - seen.keys())
        self.outcome.doubled = sum(count - 1 for count in seen.values())
        if wanted:
            self.outcome.identical = memories(self.run) == wanted


def memories(run: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(run.glob("memory/*/memory.parquet"))}


def later(attempt: Attempt, act: Callable[[], object]) -> Disturb:
    def disturb(driver: subprocess.Popen[bytes]) -> None:
        time.sleep(attempt.outcome.at)
        if driver.poll() is None:
            act()

    return disturb


def kill_driver(driver: subprocess.Popen[bytes]) -> None:
    if driver.poll() is None:
        os.kill(driver.pid, signal.SIGKILL)


def killed_driver(attempt: Attempt, files: dict[str, pa.Table] | None = None) -> None:
    attempt.publish(attempt.files() if files is None else files)

    def disturb(driver: subprocess.Popen[bytes]) -> None:
        time.sleep(attempt.outcome.at)
        kill_driver(driver)

    attempt.go(disturb)


def kill_actor(name: str) -> Callable[[Attempt], None]:
    def fault(attempt: Attempt) -> None:
        attempt.publish(attempt.files())

        def disturb(driver: subprocess.Popen[bytes]) -> None:
            time.sleep(attempt.outcome.at)
            found = False
            while driver.poll() is None and not (found := attempt.cluster.kill_actor(name)):
                time.sleep(0.02)
            attempt.outcome.told = f"{name} killed" if found else f"there was no {name}"

        attempt.go(disturb)

    return fault


def kill_node(attempt: Attempt) -> None:
    """Actors that claim nothing move to the node that is left; a claim that fits no more ends the driver."""
    attempt.options += (f"--resources.num-cpus={attempt.outcome.seed // len(FAULTS) % 2}",)
    attempt.cluster.add_node()
    attempt.publish(attempt.files())

    def act() -> None:
        attempt.outcome.told = ", ".join(attempt.cluster.kill_node())

    attempt.go(later(attempt, act))
    if attempt.cluster.nodes:
        attempt.cluster.kill_node()


def full_store(attempt: Attempt) -> None:
    """Another driver on the cluster fills the object store for as long as the run lasts; objects spill."""
    attempt.publish(attempt.files())
    filler = attempt.cluster.fill_store()
    try:
        attempt.go(lambda driver: None)
    finally:
        attempt.outcome.told = "the store stayed full" if filler.poll() is None else "the store was freed"
        filler.kill()
        filler.wait()


def full_disk(attempt: Attempt) -> None:
    """The run lies on a small file system that fills up; there is room again once the driver has ended."""
    attempt.run.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "tmpfs", str(attempt.run)]
    subprocess.run(mount, check=True)
    attempt.publish(attempt.files())
    ballast = attempt.root / "run" / ".ballast"

    def disturb(driver: subprocess.Popen[bytes]) -> None:
        time.sleep(attempt.outcome.at)
        while driver.poll() is None:
            space = os.statvfs(attempt.run)
            with ballast.open("ab") as file, suppress(OSError):
                file.write(b"\0" * (space.f_bavail * space.f_frsize))
            time.sleep(0.05)
        ballast.unlink(missing_ok=True)
        attempt.outcome.told = next(
            (line for line in reversed(_lines(attempt)) if "No space left" in line), ""
        )

    attempt.go(disturb)


def damaged_file(write: Callable[[Path], None]) -> Callable[[Attempt], None]:
    """A file that cannot be taken lies among the others; the driver is killed too."""

    def fault(attempt: Attempt) -> None:
        place = random.Random(attempt.outcome.seed).randrange(FILES)
        write(attempt.root / "in" / f"{place:04d}-bad.parquet")
        killed_driver(attempt)

    return fault


def truncated(path: Path) -> None:
    pq.write_table(pa.table({"event": ["x"] * 500}), path)
    path.write_bytes(path.read_bytes()[:-40])


def foreign(path: Path) -> None:
    pq.write_table(pa.table({"somebody": [1, 2], "elses": [3, 4]}), path)


def duplicated_file(attempt: Attempt) -> None:
    files = attempt.files()
    name, rows = random.Random(attempt.outcome.seed).choice(list(files.items()))
    killed_driver(attempt, {**files, name.replace(".", "-again."): rows})


def reordered_files(attempt: Attempt) -> None:
    files = attempt.files()
    shuffled = random.Random(attempt.outcome.seed).sample(list(files.values()), FILES)
    killed_driver(attempt, dict(zip(files, shuffled, strict=True)))


def rows_from_the_past(attempt: Attempt) -> None:
    """A file whose rows lie forty years before the others: all of it is late, and set aside."""
    files = attempt.files()
    name = random.Random(attempt.outcome.seed).choice(list(files)[FILES // 2 :])
    rows = files[name]
    past = pa.array(rows["time_ms"].to_numpy() - FORTY_YEARS_MS)
    killed_driver(
        attempt, {**files, name: rows.set_column(rows.column_names.index("time_ms"), "time_ms", past)}
    )


def clock_goes_back(attempt: Attempt) -> None:
    """The wall clock of the driver jumps back by an hour, and the driver is killed a moment later."""
    attempt.publish(attempt.files())
    attempt.module = ("tests.backward_clock", str(attempt.outcome.at), "pipelines.stream")

    def disturb(driver: subprocess.Popen[bytes]) -> None:
        time.sleep(attempt.outcome.at + 1)
        if attempt.outcome.seed % 2:
            kill_driver(driver)

    attempt.go(disturb)


def two_workers(fault: Callable[[Attempt], None]) -> Callable[[Attempt], None]:
    """A fault while two workers learn the reference, after which two learn it, too."""

    def with_two(attempt: Attempt) -> None:
        attempt.options += TWO_WORKERS
        attempt.restarted_with = TWO_WORKERS
        attempt.deadline = 2 * DEADLINE_S
        fault(attempt)

    return with_two


def other_workers(attempt: Attempt) -> None:
    """The driver is killed, and started again on a cluster where another number learns the reference."""
    before, after = ((), TWO_WORKERS) if attempt.outcome.seed % 2 else (TWO_WORKERS, ())
    attempt.options, attempt.restarted_with = (*attempt.options, *before), after
    attempt.deadline = 2 * DEADLINE_S
    killed_driver(attempt)


def damaged_checkpoint(attempt: Attempt) -> None:
    """The driver is killed, and a file that restoring needs is damaged: refused by name until it is back."""
    attempt.publish(attempt.files())
    draw = random.Random(attempt.outcome.seed)

    def disturb(driver: subprocess.Popen[bytes]) -> None:
        time.sleep(attempt.outcome.at)
        while driver.poll() is None and not list(attempt.run.glob("stages/*.json")):
            time.sleep(0.02)
        if driver.poll() is not None:
            attempt.outcome.told = "the run had ended before"
            return
        kill_driver(driver)
        driver.wait()
        run = Run.read(str(attempt.run))
        manifest = Manifest.read(run.folder, run.stage)
        assert manifest
        path = attempt.run / draw.choice(manifest.files).path
        content = path.read_bytes()
        if draw.random() < 0.5:
            path.unlink()
        else:
            path.write_bytes(content[:-1])

        def repair() -> None:
            line = next((line for line in _lines(attempt) if path.name in line), "")
            attempt.outcome.told = line or "NOT REFUSED"
            attempt.outcome.bad_looks += [] if line else [f"{path} was not refused"]
            path.write_bytes(content)

        attempt.repair = repair

    attempt.go(disturb)


def _lines(attempt: Attempt) -> list[str]:
    return (attempt.root / "out").read_text().splitlines()


# Name -> what it does, and whether the rows stay the same and in the same blocks.
FAULTS: dict[str, tuple[Callable[[Attempt], None], bool]] = {
    "driver killed": (killed_driver, True),
    "reference killed": (kill_actor("ReferenceModel"), True),
    "scorer killed": (kill_actor("Scorer"), True),
    "distiller killed": (kill_actor("Distiller"), True),
    "node killed": (kill_node, True),
    "disk full": (full_disk, True),
    "object store full": (full_store, True),
    "truncated file": (damaged_file(truncated), True),
    "foreign file": (damaged_file(foreign), True),
    "duplicated file": (duplicated_file, False),
    "reordered files": (reordered_files, False),
    "rows from the past": (rows_from_the_past, False),
    "clock goes back": (clock_goes_back, True),
    "checkpoint damaged": (damaged_checkpoint, True),
    "other number of workers": (other_workers, False),
    "one of two workers killed": (two_workers(kill_actor("RayTrainWorker")), True),
    "driver of two workers killed": (two_workers(killed_driver), True),
    "desk of two workers killed": (two_workers(kill_actor("ReferenceGroup")), True),
}
OF_TWO_WORKERS = [name for name in FAULTS if "two workers" in name]  # their memories are those of two


def campaign(
    runs: int = 110,
    out: Path = Path(".demo/faults.json"),
    seed: int = 0,
    faults: tuple[str, ...] = tuple(FAULTS),
) -> None:
    """Run the campaign of FAULTS in turn; the outcomes go to OUT as JSON, a table to the terminal.

    Ends with status 1 where a row was lost or doubled, a memory differs, a reader saw half a state, or a run
    hung.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the cluster goes too
    console, draw, outcomes = Console(width=300), random.Random(seed), []
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    cluster = SmallCluster(folder / "ray")
    try:
        log = write_log(folder, rows=ROWS)
        wanted, usual = undisturbed(folder / "one", log, cluster, ())
        wanted_of_two, usual_of_two = wanted, usual
        if set(faults) & {*OF_TWO_WORKERS, "other number of workers"}:
            wanted_of_two, usual_of_two = undisturbed(folder / "two", log, cluster, TWO_WORKERS)
        console.print(f"undisturbed: {usual:.0f} s, of two workers {usual_of_two:.0f} s")
        for number in range(runs):
            name = faults[number % len(faults)]
            fault, same_blocks = FAULTS[name]
            # Workers are up in the middle of a run of two.
            length = usual_of_two / 2 if name in OF_TWO_WORKERS else usual
            outcome = Outcome(name, number, round(draw.uniform(0, length), 2))
            attempt = Attempt(_made(folder / f"{number:03d}"), log, cluster, outcome)
            fault(attempt)
            if not outcome.hung:
                expected = wanted_of_two if name in OF_TWO_WORKERS else wanted
                attempt.check(expected if same_blocks else {})
            console.print(f"{number + 1}/{runs} {'good' if outcome.good else 'BAD'} {asdict(outcome)}")
            outcomes.append(outcome)
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps([asdict(each) for each in outcomes], indent=1))
            if name == "disk full":
                subprocess.run(["umount", str(attempt.run)], check=True)
            if outcome.good:
                shutil.rmtree(attempt.root)
    finally:
        cluster.stop()
    console.print(table(outcomes), markup=False)
    if not all(outcome.good for outcome in outcomes):
        console.print(f"bad runs are left in {folder}")
        sys.exit(1)
    shutil.rmtree(folder)


def undisturbed(
    folder: Path, log: pa.Table, cluster: SmallCluster, options: tuple[str, ...]
) -> tuple[dict[str, bytes], float]:
    """The memories of a run without a fault, and its seconds."""
    calm = Attempt(_made(folder), log, cluster, Outcome("none", -1, 0))
    calm.options, calm.deadline = (*OPTIONS, *options), 2 * DEADLINE_S
    calm.publish(calm.files())
    calm.go(lambda driver: None)
    found = memories(calm.run)
    assert len(found) == ROWS // BLOCK_ROWS, (calm.root / "out").read_text()
    return found, calm.outcome.seconds


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def table(outcomes: list[Outcome]) -> str:
    """The outcomes by fault, as Markdown."""
    lines = [
        "| fault | runs | started again | rows lost | rows doubled | memories identical | looks | bad looks "
        "| hangs | longest run |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(outcome.fault for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.fault == name]
        compared = [outcome.identical for outcome in mine if outcome.identical is not None]
        cells = [
            name,
            len(mine),
            sum(outcome.starts > 1 for outcome in mine),
            sum(outcome.lost for outcome in mine),
            sum(outcome.doubled for outcome in mine),
            f"{sum(compared)} of {len(compared)}" if compared else "other blocks",
            f"{sum(outcome.looks for outcome in mine):,}",
            sum(len(outcome.bad_looks) for outcome in mine),
            sum(outcome.hung for outcome in mine),
            f"{max(outcome.seconds for outcome in mine):.0f} s",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(campaign, prog="python -m tests.fault_campaign")
