"""A .keras file looked through before Keras loads it: what could do harm is refused with a reason.

Keras' safe mode refuses code that is stored in the file, such as a `Lambda`. It does not refuse what makes
Keras itself read other files, run what another library has pickled, or fill the memory. Only members that
Keras writes, classes of Keras that compute, and weights that lie in the file itself pass:

    archive    a zip of config.json, metadata.json and model.weights.h5, unpacked not much larger than packed
    classes    of the public modules of Keras in `MODULES`, none in `REFUSED`
    lookups    that hold their vocabulary, and name no file
    weights    HDF5 without external links, external or virtual data, and no larger than the member
"""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from src.errors import UserError

SAFE = "a Keras model that loads in safe mode"
CONFIG, WEIGHTS = "config.json", "model.weights.h5"
MEMBERS = {CONFIG, "metadata.json", WEIGHTS}
LARGEST = 64 << 20  # bytes of config.json
RATIO = 20  # unpacked bytes for each byte of the archive, above a few
FEW = 1 << 20
DEEPEST = 100  # sections within one another: Keras reads them by recursion

# Modules of Keras whose classes compute and do nothing else; what follows a dot is allowed with them.
MODULES = (
    "keras.activations",
    "keras.constraints",
    "keras.dtype_policies",
    "keras.initializers",
    "keras.layers",
    "keras.losses",
    "keras.metrics",
    "keras.models",
    "keras.ops",
    "keras.optimizers",
    "keras.quantizers",
    "keras.regularizers",
    "keras.src.models.functional",
    "keras.src.models.sequential",
    "keras.src.ops",
)
FUNCTIONS = ("keras.activations", "keras.losses", "keras.metrics")
ALONE = {"DTypePolicy", "Functional", "Model", "Sequential", "Variable"}  # of the module `keras` itself
# Layers of Keras that run or read what is not in the file.
REFUSED = {
    "Lambda": "it holds code",
    "TFSMLayer": "it runs a TensorFlow program from another file",
    "TorchModuleWrapper": "it unpickles",
    "FlaxLayer": "it unpickles",
    "JaxLayer": "it unpickles",
}
MARKS = {"__keras_tensor__", "__tuple__", "__slice__", "__ellipsis__", "__numpy__", "__tensor__"}  # of values
FILES = ("vocabulary", "idf_weights", "filepath", "file_path", "filename")  # arguments that may name a file


def scan(path: Path) -> None:
    """Looks through a .keras file, of which nothing is run and nothing is written.

    Raises:
        UserError: If it holds what a model of Keras' own layers does not need.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            reason = next(_reasons(archive, path.stat().st_size), None)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        reason = f"no whole zip archive ({error})"
    except (ValueError, RecursionError, OSError) as error:
        reason = f"what cannot be read ({' '.join(str(error).split()) or type(error).__name__})"
    if reason:
        raise UserError(f"{path}: expected {SAFE}, found: {reason}")


def _reasons(archive: zipfile.ZipFile, size: int) -> Iterator[str]:
    """Yields what is wrong with the archive, the cheapest to find first."""
    members = archive.infolist()
    names = [member.filename for member in members]
    for name in names:
        if name not in MEMBERS:
            yield f"the member {name!r}"
        if names.count(name) > 1:
            yield f"the member {name!r} twice"
    for name in (CONFIG, WEIGHTS):
        if name not in names:
            yield f"no member {name}"
    for member in members:
        if member.flag_bits & 1:
            yield f"the encrypted member {member.filename}"
    unpacked = sum(member.file_size for member in members)
    if unpacked > RATIO * size + FEW:
        yield f"{unpacked:,} bytes packed into {size:,}"
    if archive.getinfo(CONFIG).file_size > LARGEST:
        yield f"{CONFIG} of {archive.getinfo(CONFIG).file_size:,} bytes"
    yield from _classes(json.loads(archive.read(CONFIG)))
    content = archive.read(WEIGHTS)
    try:
        yield from _weights(content)
    except Exception as error:  # of damaged HDF5, h5py raises nearly anything
        yield f"what cannot be read in {WEIGHTS} ({' '.join(str(error).split()) or type(error).__name__})"


def _classes(config: Any) -> Iterator[str]:
    """Yields the classes and arguments of a configuration that a network does not need."""
    waiting = [(config, 0)]
    while waiting:
        node, depth = waiting.pop()
        if depth > DEEPEST:
            yield f"sections more than {DEEPEST} deep in {CONFIG}"
        if isinstance(node, list):
            waiting += [(each, depth + 1) for each in node]
        elif isinstance(node, dict):
            waiting += [(each, depth + 1) for each in node.values()]
            if "class_name" in node:
                yield from _class(node)
            for key in FILES:
                if isinstance(node.get(key), str):
                    yield f"the file {node[key]!r} as {key} of a layer"


def _class(node: dict[str, Any]) -> Iterator[str]:
    name, module = node["class_name"], node.get("module")
    if not isinstance(name, str) or not isinstance(module, str | None):
        yield f"a class that is no name: {name!r}"
        return
    if name in REFUSED:
        yield f"a layer {name}: {REFUSED[name]}"
    if name == "function":  # one of Keras by its name, such as an activation
        name = str(node.get("config"))
        if module not in FUNCTIONS:
            yield f"the function {name!r} of {module!r}, which is none of Keras' own that compute"
    inside = module is not None and any(module == each or module.startswith(f"{each}.") for each in MODULES)
    alone = module == "keras" and name in ALONE
    if not (inside or alone or (module is None and name in MARKS)):
        yield f"the class {name!r} of {module!r}, which is none of Keras' own that compute"
    registered = node.get("registered_name")
    if registered not in (None, name) or (registered and ">" in str(registered)):
        yield f"the registered class {registered!r}, which is none of Keras' own"


def _weights(content: bytes) -> Iterator[str]:
    """Yields what in the weights lies elsewhere, or is larger than it looks."""
    import h5py

    with h5py.File(io.BytesIO(content), "r") as file:
        groups, total = [file], 0
        seen = set()
        while groups:
            group = groups.pop()
            for name in group:
                link = group.get(name, getlink=True)
                if not isinstance(link, h5py.HardLink):
                    yield f"a link to elsewhere, {group.name.rstrip('/')}/{name}, in {WEIGHTS}"
                    return
                item = group[name]
                if item.id in seen:  # a group in itself has no end
                    yield f"{item.name} twice in {WEIGHTS}"
                    return
                seen.add(item.id)
                if isinstance(item, h5py.Group):
                    groups.append(item)
                elif isinstance(item, h5py.Dataset):
                    if item.external or item.is_virtual:
                        yield f"data of another file, {item.name}, in {WEIGHTS}"
                        return
                    total += item.nbytes
                else:
                    yield f"{item.name}, which is no weight, in {WEIGHTS}"
        if total > len(content):
            yield f"weights of {total:,} bytes in {len(content):,} bytes of {WEIGHTS}"
