"""Calls the command line at random, with hostile options and files: `python tools/fuzz.py --calls 1000`.

The options of every registered command come from its parser, so that new ones are tried without a word here. Each
call runs in a forked process with its own limits. A call fails if it prints a traceback, the sentence of a library
or control characters, ends by a signal or with another status than 0, 1 or 2, takes longer than 10 seconds or more
than 1 GB, or changes a file that is not its output. Each failure is printed with the shortest command that shows it.

`--seed S --only K` repeats call K and leaves its files for a look.
"""

import argparse
import importlib
import os
import pkgutil
import random
import re
import resource
import shlex
import shutil
import signal
import stat
import sys
import tempfile
import time
import warnings
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
os.environ.pop("EQM_TRACEBACK", None)

import torch
import tyro
from hostile_files import make
from PIL import Image

import eqm
from eqm.cli.main import main
from eqm.cli.parser import rules
from eqm.recipes import RECIPES, find_recipe
from eqm.registry import lookup, names

SECONDS = 10
MEMORY = 1 << 30
RAW = re.compile(
    r"Traceback|^eqm: unexpected|invalid literal|could not convert|[Oo]verflow|Stop argument|object is not|"
    r"has no attribute|unsupported operand|not subscriptable|index out of|out of bounds|must be str|"
    r"codec can't|Expecting |Extra data|size mismatch|mat1 and mat2|size of tensor|invalid for input of size|"
    r"could not broadcast|division by zero|cannot convert|math domain|maximum recursion|\[Errno|state_dict|"
    r"\w+Error\b|\w+Exception\b|<class|object at 0x|site-packages|\.py:\d|NoneType|unhashable|keyword argument|"
    r"positional argument|__\w+__|DefaultCPUAllocator|\w+Warning\b|dtype\('|torch\.Size|not iterable|TypedStorage|"
    r"expected .* but got|\bnot a valid\b|Expected .*[Tt]ensor\b|can't convert|np\.|numpy\.|too large to",
    re.MULTILINE,
)
"""What no sentence of eqm holds."""
GOOD = {
    "model": ["model", "model", "colour", "run", "points"],
    "pictures": ["flat", "pictures", "one.png", "digits:0-3", "images.npz:0-3", "deep", "colours"],
    "source": [
        "digits",
        "images.npz",
        "pictures",
        "flat",
        "pictures.zip",
        "shards",
        "idx",
        "moons",
        "table.parquet",
    ],
    "INT": ["0", "1", "2", "3", "8", "16"],
    "FLOAT": ["0", "0.1", "0.5", "1", "2"],
    "STR": ["none", "auto", "a", "linear", "sgd", "x=y"],
    "label": ["0", "1", "cat", "dog", "none"],
    "name": [
        "lite0",
        "pixels",
        "pca:4",
        "loss",
        "frechet",
        "combined",
        "random",
        "nesterov",
        "dot",
    ],
    "device": ["cpu", "auto"],
    "expression": ["cat", "0 + 0.5*1", "left*0 + ~left*1", "cat - dog"],
    "import": ["fine.py"],
    "output": [
        "out",
        "out.png",
        "out.npz",
        "out.csv",
        "out.json",
        "out.gif",
        "new/out.safetensors",
    ],
}
"""Values of options by what they are; see `kind_of`."""
HOSTILE = [
    *(
        "-1",
        "1000000000000",
        "1" + "0" * 25,
        "nan",
        "inf",
        "-inf",
        "1e308",
        "1e-320",
        "0x10",
        "1_0",
        "1.5",
        "٣",
    ),
    *(
        "",
        " ",
        "--",
        "-",
        ".",
        "..",
        "/",
        "~",
        "*",
        "x" * 5000,
        "a\x1b[31mb",
        "a\nb",
        "é\u202e",
        "\udcff",
        "[red]x",
    ),
    *(
        "none",
        "None",
        "True",
        "%s",
        "{}",
        "null",
        "a=b",
        "=",
        "a=",
        "hf:no/such",
        "no/such",
        "meta",
        "cuda",
        "cpu:9",
    ),
    *(
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        "/proc/self/mem",
        "/etc/passwd",
        "notes.txt",
        "none",
        "empty",
    ),
    *(
        "digits:9-1",
        "digits:0-99999999999",
        "digits:99999999999999999999",
        "x:0",
        ":",
        "[a]*.tar",
        "pca:0",
        "pca:x",
    ),
    *(
        "pca:1000000000000",
        "inception:none",
        "clip:model",
        "classifier:x",
        "0+",
        "1e999*0",
        "((",
        "0*0*0*0*0",
        "cat^2",
    ),
    *(
        "out.txt",
        "/none/x.png",
        "/proc/x.png",
        "notes.txt/x.png",
        "out.tar.png",
        "o" * 300 + ".png",
        "../x.png",
    ),
]
BASE = {
    "sample": ["model", "--count", "2"],
    "denoise": ["model", "flat"],
    "vary": ["model", "one.png", "--count", "2"],
    "restore": ["model", "flat", "--mask", "mask.png", "--count", "1", "--steps", "2"],
    "interpolate": ["model", "flat/0.png", "flat/1.png", "--count", "3"],
    "compose": ["model", "cat + 0.5*dog", "--count", "2"],
    "detect": ["model", "flat"],
    "eval": ["digits", "--reference", "images.npz", "--features", "pixels", "--metrics", "frechet"],
    "tune": ["model", "--data", "digits", "--samples", "8", "--references", "16", "--nfe", "2"],
    "encode": ["flat", "--vae", "model", "--output", "out"],
    "train": [
        "digits",
        "--images",
        "32",
        "--batch-size",
        "16",
        "--model.width",
        "4",
        "--model.multipliers",
        "1",
        "1",
    ],
    "demo": ["--dry-run"],
    "ema": ["run", "--sigma-rel", "0.07", "--output", "out"],
    "data": ["check", "flat"],
    "info": ["model"],
}
"""A call that works, or nearly, which others grow from; a new command starts from its required arguments."""
LONG = {"demo": ("--dry-run",), "train": ("--images", "--batch-size"), "tune": ("--samples",)}
"""Options that keep a call short."""
OUTPUTS = ("--output", "--maps", "--animate", "--save-reference")


class Option:
    """An option of a command, or an argument without a name."""

    def __init__(self, action: argparse.Action) -> None:
        self.names = action.option_strings
        self.metavar = str(action.metavar or action.dest)
        self.count = action.nargs
        self.choices = [str(choice) for choice in action.choices or ()]
        self.kind = kind_of(
            self.names[0].strip("-") if self.names else self.metavar.lower(), self.metavar
        )


def kind_of(name: str, metavar: str) -> str:
    last = name.split(".")[-1]
    for kind, words in {
        "output": ("output", "maps", "animate", "save-reference"),
        "model": ("model", "run", "init-from", "vae", "models", "resume"),
        "pictures": ("pictures ...", "pictures", "normal", "mask", "masks"),
        "source": ("samples", "path", "reference", "compare", "training", "data"),
        "label": ("labels", "classes"),
        "name": ("features", "metrics", "score", "rule", "stop", "decay"),
        "device": ("device",),
        "expression": ("expression",),
        "import": ("import",),
    }.items():
        if last in words and not (last == "samples" and metavar == "INT"):
            return kind
    return next((kind for kind in ("INT", "FLOAT") if kind in metavar), "STR")


def options_of(command: str, recipe: str = "digits") -> list[Option]:
    function = lookup("command", command)
    if command == "train":
        function = partial(function, config=find_recipe(recipe))
    config = (
        tyro.conf.AvoidSubcommands,
        tyro.conf.CascadeSubcommandArgs,
        tyro.conf.FlagCreatePairsOff,
    )
    with rules(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        parser = tyro.extras.get_parser(function, config=config)
    left_out = {"--help", "--compile"}  # compiling takes longer than a call may
    return [Option(each) for each in parser._actions if left_out.isdisjoint(each.option_strings)]


class Grammar:
    """Makes calls; `paths` are the files there are."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths
        self.options = {name: options_of(name) for name in names("command")}

    def call(self, rng: random.Random) -> list[str]:
        command = rng.choice(list(self.options))
        options = self.options[command]
        words = list(BASE.get(command, ()))
        if command not in LONG and (not words or rng.random() < 0.1):
            words = [self.value(rng, one) for one in options if not one.names]
        if rng.random() < 0.45 and words:  # another file in the place of a good one
            at = rng.choice(
                [k for k, word in enumerate(words) if not re.match(r"--|[\d.]+$", word)] or [0]
            )
            words[at] = rng.choice(self.paths) if rng.random() < 0.8 else rng.choice(HOSTILE)
        if command == "train" and rng.random() < 0.3:
            words[0] = rng.choice([*RECIPES, "cats", "folder"])
        for one in rng.sample(options, min(len(options), rng.choice([0, 1, 1, 2, 3]))):
            if not one.names:
                continue
            words = without(words, one.names[0])
            words.append(one.names[0])
            many = {"*": rng.choice([0, 1, 2, 3]), None: 1}.get(one.count, one.count)
            words += [self.value(rng, one) for _ in range(int(many))]
        if rng.random() < 0.03:
            words += rng.choice(
                [["--import", rng.choice(self.paths)], ["--nonsense"], ["--", "x"], ["--help"]]
            )
        return [command, *words] if rng.random() < 0.98 else [rng.choice(HOSTILE), *words]

    def value(self, rng: random.Random, one: Option) -> str:
        if one.choices and rng.random() < 0.8:
            return rng.choice(one.choices)
        chance = rng.random()
        if chance < 0.6:
            return rng.choice(GOOD[one.kind])
        if chance < 0.8 and one.kind not in ("INT", "FLOAT"):
            return rng.choice(self.paths)
        return rng.choice(HOSTILE)


def without(words: list[str], option: str) -> list[str]:
    """The words without the option and the values after it."""
    if option not in words:
        return words
    at = words.index(option)
    end = at + 1
    while end < len(words) and not words[end].startswith("--"):
        end += 1
    return words[:at] + words[end:]


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """What shows a change of anything in the folder."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(root, name)  # noqa: PTH118
            about = os.lstat(path)
            mark = (about.st_mode, about.st_ino)
            if not stat.S_ISDIR(about.st_mode):
                mark += (about.st_size, about.st_mtime_ns)
            found[os.path.relpath(path, folder)] = mark
    return found


def allowed(words: list[str]) -> list[str]:
    """The paths that a call may write: its outputs, given or by default."""
    found = [
        "samples.png",
        "denoised.png",
        "variations.png",
        "restored.png",
        "interpolation.png",
        "composition.png",
    ]
    found += ["runs", "eqm-demo"]
    inputs: list[str] = []
    option = ""
    for word in words[1:]:
        if word.startswith("--"):
            option = word
        elif option in OUTPUTS:
            found.append(word)
        else:
            inputs.append(word.split(":")[0])
    if words[0] == "tune" or "--save" in words:
        found += inputs
        inputs = []
    if words[0] == "train":
        inputs = []  # a run that goes on
    return [os.path.normpath(path) for path in found if path not in inputs]


class Fuzz:
    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.template, self.work = folder / "template", folder / "work"
        self.template.mkdir()
        in_child(lambda: make(self.template, random.Random(seed)), folder / "made")
        self.fill()
        tops = [
            path
            for path in self.before
            if path.count("/") == path.startswith(("bad/", "broken/", "deep/"))
        ]
        self.grammar = Grammar(
            sorted({*tops, "run/config.json", "run/best"} - {"home", "tmp", "broken"})
        )
        self.longest, self.largest = 0.0, 0
        self.statuses: Counter[int] = Counter()

    def fill(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        in_child(lambda: copy(self.template, self.work), self.folder / "made")
        self.before = snapshot(self.work)

    def words(self, number: int) -> list[str]:
        return self.grammar.call(random.Random(f"{self.seed}:{number}"))

    def run(self, words: list[str], *, keep: bool = False) -> list[str]:
        """What is wrong with a call."""

        def child() -> int:
            os.chdir(self.work)
            os.environ |= {"HOME": str(self.work / "home"), "TMPDIR": str(self.work / "tmp")}
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (MEMORY, MEMORY))
            space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (space + 3 * MEMORY,) * 2)
            sys.argv = ["eqm", *words]
            try:
                return main()
            except SystemExit as end:
                return end.code if isinstance(end.code, int) else int(end.code is not None)

        log = self.folder / "log"
        status, seconds, memory = in_child(child, log, seconds=SECONDS)
        self.statuses[status] += 1
        self.longest, self.largest = max(self.longest, seconds), max(self.largest, memory)
        out, err = ((log / name).read_text("utf-8", "surrogateescape") for name in ("out", "err"))
        wrong = []
        if seconds >= SECONDS:
            wrong.append(f"it took longer than {SECONDS} s")
        elif status not in (0, 1, 2) and not (status == 3 and "exits.py" in words):
            wrong.append(f"it ended with status {status}")
        if memory > MEMORY:
            wrong.append(f"it took {memory >> 20} MB")
        if raw := RAW.search(remove(words, err)):
            wrong.append(f"it printed {raw[0]!r}")
        if bad := re.search(
            r"[^\n\t\r]", "".join(c for c in out + err if not c.isprintable() and c not in "\n\t\r")
        ):
            wrong.append(f"it printed the character {bad[0]!r}")
        if status == 2 and not err.strip():
            wrong.append("it gave no reason")
        after = snapshot(self.work)
        changed = [
            path for path in {**self.before, **after} if self.before.get(path) != after.get(path)
        ]
        places = allowed(words)
        if foreign := [
            path
            for path in changed
            if not any(path == place or path.startswith(f"{place}/") for place in places)
            and not any(place.startswith(f"{path}/") for place in places)
        ]:
            wrong.append(f"it changed {sorted(foreign)[:3]}")
        if keep:
            print(
                f"status {status}, {seconds:.1f} s, {memory >> 20} MB, in {self.work}\n{out}\n{err}"
            )
        elif changed:
            self.fill()
        return wrong

    def shortest(self, words: list[str]) -> list[str]:
        """A call with as few words as still fails."""
        k = len(words) - 1
        while k > 0:
            if words[k] in LONG.get(words[0], ()):
                k -= 1
                continue
            fewer = without(words, words[k]) if words[k][:2] == "--" else words[:k] + words[k + 1 :]
            if fewer != words and self.run(fewer):
                words = fewer
            k = min(k, len(words)) - 1
        return words


def remove(words: list[str], text: str) -> str:
    """The text without what it repeats of the call."""
    for word in sorted(words, key=len, reverse=True):
        if len(word) > 3:
            text = text.replace(word, "").replace(repr(word), "")
    return text


def copy(source: Path, target: Path) -> int:
    """Copies a folder with its links and pipes."""
    target.mkdir()
    for path in sorted(source.rglob("*")):
        to = target / path.relative_to(source)
        if path.is_symlink():
            to.symlink_to(path.readlink())
        elif path.is_dir():
            to.mkdir()
        elif path.is_fifo():
            os.mkfifo(to)
        else:
            shutil.copy2(path, to)
    return 0


def in_child(work, log: Path, *, seconds: float = 600) -> tuple[int, float, int]:
    """The status of `work()` in a forked process, its time and its most memory; its streams go to `log`."""
    log.mkdir(exist_ok=True)
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.setsid()
        status = 99
        try:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(log / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            status = work() or 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            for stream in filter(None, (sys.stdout, sys.stderr)):
                with suppress(OSError):
                    stream.flush()
            os._exit(status)
    while True:
        done, code, usage = os.wait4(child, os.WNOHANG)
        passed = time.monotonic() - started
        if done:
            return os.waitstatus_to_exitcode(code), passed, usage.ru_maxrss << 10
        if passed > seconds:
            os.killpg(child, signal.SIGKILL)
            _, code, usage = os.wait4(child, 0)
            return os.waitstatus_to_exitcode(code), passed, usage.ru_maxrss << 10
        time.sleep(0.005)


def load_everything() -> None:
    torch.set_num_threads(1)
    Image.init()
    for module in pkgutil.walk_packages(eqm.__path__, "eqm."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in (
        "sklearn.datasets",
        "scipy.linalg",
        "pyarrow.parquet",
        "rich.progress",
        "torch._dynamo",
    ):
        with suppress(ImportError):
            importlib.import_module(name)


def run() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", type=int)
    given = parser.parse_args()
    load_everything()
    folder = Path(tempfile.mkdtemp(prefix="eqm-fuzz-"))
    fuzz = Fuzz(folder, given.seed)
    if given.only is not None:
        words = fuzz.words(given.only)
        print(f"eqm {shlex.join(words)}")
        print("\n".join(fuzz.run(words, keep=True)))
        return 0
    started, failures, calls = time.monotonic(), 0, 0
    print(f"seed {given.seed}")
    for number in range(given.calls):
        if time.monotonic() - started > 60 * given.minutes:
            break
        words = fuzz.words(number)
        calls += 1
        if wrong := fuzz.run(words):
            failures += 1
            words = fuzz.shortest(words)
            wrong = fuzz.run(words) or wrong
            last = (folder / "log/err").read_text("utf-8", "replace").strip().splitlines()[-1:]
            print(
                f"call {number}: {'; '.join(wrong)}\n  eqm {shlex.join(words)[:600]}\n  {''.join(last)[:400]!r}",
                flush=True,
            )
    shutil.rmtree(folder, ignore_errors=True)
    print(
        f"{calls} calls in {time.monotonic() - started:.0f} s, {failures} failed; "
        f"statuses {dict(fuzz.statuses)}, the longest took {fuzz.longest:.1f} s, the largest {fuzz.largest >> 20} MB"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(run())
