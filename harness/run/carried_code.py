"""Carry a user's own code to the workers, and identify it.

A configuration may name objects of the user's own modules. A worker may run on another machine,
which does not have these modules, or has an older copy. So the specification of a run contains the
source of the modules, and a worker imports them from there. Ray's runtime environment could also
carry modules. But it uploads them before Ray starts an actor, and Ray accepts it only when it
starts, while some callers have started Ray already.

Modules that are installed in site-packages, and modules of this project, are not carried. The
machines of a cluster must have these modules anyway.
"""

import hashlib
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from modulefinder import ModuleFinder
from pathlib import Path
from types import ModuleType

from harness.config.keys import OPTION_KEYS
from harness.config.own_code import import_own, is_own
from harness.config.schema import Config
from harness.errors import UserError, is_library

MOST_BYTES = 2**24  # of all sources together; every worker gets a copy
_OURS = ("analysis", "cluster", "harness", "supsup_core")


@dataclass(frozen=True)
class Source:
    """The source of one module.

    Attributes:
        path: path of the file on the driver's machine, which tracebacks show.
        text: the bytes of the file.
    """

    path: str
    text: bytes


@dataclass(frozen=True)
class CarriedCode:
    """The sources of the modules of the user's own objects, and of the modules that they import.

    Attributes:
        sources: a mapping from the name of a module, such as mynets.layers, to its source.
        modules: a mapping from a key, such as network, to the names of the modules of the key's
            object. It has only keys that name an object of the user's own.
    """

    sources: Mapping[str, Source] = field(default_factory=dict)
    modules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config) -> "CarriedCode":
        """Import the own objects that a configuration names, and collect their sources.

        For a package, all its modules are collected. A module that is imported, and that lies in
        the folder of the package or the file, is collected too.

        Raises:
            UserError: an object cannot be imported, or the sources are too large.
        """
        sources: dict[str, Source] = {}
        modules = {}
        for kind in OPTION_KEYS:
            name = str(getattr(config, kind))
            if is_own(name):
                import_own(kind, name)
                found = _sources(sys.modules[name.partition(":")[0].partition(".")[0]])
                if found:
                    modules[kind] = tuple(sorted(found))
                    sources |= found
        if (size := sum(len(one.text) for one in sources.values())) > MOST_BYTES:
            raise UserError(
                f"own code must have at most {MOST_BYTES / 1e6:.0f} MB of Python files, got "
                f"{size / 1e6:.0f} MB: put the code into a smaller package, or install it on every "
                "machine"
            )
        return cls(sources, modules)

    @cached_property
    def digests(self) -> dict[str, str]:
        """A mapping from a key, such as network, to the SHA-256 of its modules' sources."""
        found = {}
        for kind, names in self.modules.items():
            digest = hashlib.sha256()
            for name in names:
                text = self.sources[name].text
                digest.update(f"{name} {len(text)}\n".encode())
                digest.update(text)
            found[kind] = digest.hexdigest()
        return found

    def install(self) -> None:
        """Let this process import the carried modules, before all others of the same names."""
        if not self.sources:
            return
        sys.meta_path[:] = [one for one in sys.meta_path if not isinstance(one, _Finder)]
        sys.meta_path.insert(0, _Finder(self.sources))
        for name, source in self.sources.items():
            loaded = sys.modules.get(name)
            if loaded is not None and _source_of(loaded) != source:
                del sys.modules[name]


class _Loader(SourceLoader):
    """An import loader (importlib) for one of these modules."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def get_filename(self, fullname: str) -> str:
        return self.source.path

    def get_data(self, path: str | bytes) -> bytes:
        return self.source.text


class _Finder(MetaPathFinder):
    """An import finder (importlib) for the modules whose sources a specification carries."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources

    def find_spec(
        self, fullname: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        source = self._sources.get(fullname)
        return spec_from_loader(fullname, _Loader(source)) if source else None


def _source_of(module: ModuleType) -> Source | None:
    """Return the source from which a module was loaded; None if it has no readable file."""
    loader = getattr(module, "__loader__", None)
    if isinstance(loader, _Loader):
        return loader.source
    return _read(getattr(module, "__file__", None))


def _read(file: str | None) -> Source | None:
    try:
        return Source(file, Path(file).read_bytes()) if file and file.endswith(".py") else None
    except OSError:
        return None


def _sources(root: ModuleType) -> dict[str, Source]:
    """Collect the sources of a top-level module or package, and of modules that it imports.

    Imported modules are collected if they lie in the same folder as the module or the package.

    Imports are found in the text of the files. No file is executed for this.
    """
    if root.__name__ in _OURS:
        return {}
    packages = [Path(one) for one in getattr(root, "__path__", ())]
    file = getattr(root, "__file__", None)
    if not packages and file is None:
        return {}
    folder = packages[0].parent if packages else Path(str(file)).parent
    if is_library(f"{folder}/"):
        return {}
    names = [root.__name__]
    for package in packages:
        names += _modules_of(root.__name__, package)
    finder = ModuleFinder([str(folder)], excludes=_OURS)
    for name in names:
        with suppress(ImportError, SyntaxError):  # this module may not be needed
            finder.import_hook(name)
    found = {}
    for name, module in finder.modules.items():
        source = _read(getattr(module, "__file__", None))
        if source is not None:
            found[name] = source
    return found


def _modules_of(package: str, folder: Path) -> list[str]:
    """List the dotted names of all modules in a package's folder and in the folders below.

    Raises:
        UserError: a folder with modules has no __init__.py. The standard library's ModuleFinder
            needs this file.
    """
    files = [file for file in sorted(folder.rglob("*.py")) if file.is_file()]
    for parent in dict.fromkeys(file.parent for file in files):
        if not (parent / "__init__.py").is_file():
            raise UserError(
                f"package {package} of your own must have a file __init__.py in each folder, got "
                f"none in {parent}: add an empty file"
            )
    return [
        ".".join([package, *file.relative_to(folder).with_suffix("").parts])
        for file in files
        if file.name != "__init__.py"
    ]
