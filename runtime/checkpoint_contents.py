"""What a checkpoint file asks for, compared with what it holds, before torch allocates anything.

torch.load believes the sizes in a file. A file of a megabyte can ask for terabytes, and a storage
can claim more bytes than the file has for it.
"""

import io
import math
import operator
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_DEPTH = 20  # of containers within containers; a training's options are four deep
MAX_DIMS = 8  # of a tensor
VALUES_PER_BYTE = 10  # at most, in the pickle; values that occur often are pickled once

ITEM_SIZES = {
    "BoolStorage": 1,
    "ByteStorage": 1,
    "CharStorage": 1,
    "ShortStorage": 2,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "IntStorage": 4,
    "FloatStorage": 4,
    "LongStorage": 8,
    "DoubleStorage": 8,
}
PLAIN = (str, int, float, type(None))  # a bool is an int


def excess_in_archive(file: io.BufferedIOBase) -> str | None:
    """Say in what a zip archive exceeds its file: its members are compressed, or overlap.

    torch.save and numpy.savez compress nothing.

    Returns:
        A clause that follows the path of the file, or None where all is well.

    Raises:
        zipfile.BadZipFile: no zip archive.
    """
    size = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        return "is compressed, which moonwalk's own files never are"
    if sum(member.file_size for member in members) > size:
        return "claims more bytes than it has"
    return None


def excess_in_checkpoint(file: io.BufferedIOBase) -> str | None:
    """Say in what a checkpoint exceeds its file, once `excess_in_archive` finds nothing.

    Returns:
        A clause that follows the path of the file, or None where all is well.

    Raises:
        Exception: the file is damaged. Many types of error can occur.
    """
    return _checked_state(file)[0]


def options_in_checkpoint(path: str | Path) -> object:
    """Read the options of a training from its checkpoint, without torch and without the tensors.

    Returns:
        What the checkpoint holds as its options; None if it holds none.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is damaged or no checkpoint.
    """
    with Path(path).open("rb") as file:
        try:
            excess = excess_in_archive(file)
            state: Any = None
            if not excess:
                excess, state = _checked_state(file)
        except Exception as error:  # damaged bytes raise many types of error
            raise ValueError(f"the checkpoint {path} is damaged or no checkpoint at all") from error
    if excess:
        raise ValueError(f"the checkpoint {path} is damaged: it {excess}")
    return state.get("config") if isinstance(state, Mapping) else None


def _checked_state(file: io.BufferedIOBase) -> tuple[str | None, object]:
    """Return in what a checkpoint exceeds its file, or None, and its state with a _Tensor for each tensor."""
    with zipfile.ZipFile(file) as archive:
        sizes = {member.filename: member.file_size for member in archive.infolist()}
        folder = archive.namelist()[0].partition("/")[0]
        content = archive.read(f"{folder}/data.pkl")

    inventory = _Inventory(io.BytesIO(content))
    state = inventory.load()
    return _excess(inventory, sizes, folder, state, len(content)), state


def _excess(inventory: "_Inventory", sizes: Mapping[str, int], folder: str, state: object, length: int) -> str | None:
    """Say in what the pickle of a checkpoint, of `length` bytes, exceeds the members of its archive.

    sizes: bytes of each member, by its name.
    folder: of the archive, in which the members lie.
    """
    if inventory.refused is not None:
        return f"holds {inventory.refused}, which is no plain tensor, number or text"
    for key, asked in inventory.storages.items():
        if asked != sizes.get(f"{folder}/data/{key}"):
            return f"claims {asked:,} bytes for a tensor, and has other bytes for it"
    if inventory.tensor_bytes > sum(sizes.values()):
        return f"claims {inventory.tensor_bytes:,} bytes of tensors, which is more than it has"
    return _excess_in_values(state, VALUES_PER_BYTE * length)


def _excess_in_values(state: object, limit: int) -> str | None:
    """Say whether containers are too deep, as those that hold themselves, or hold too many values."""
    count = 0
    waiting: list[tuple[Any, int]] = [(state, 0)]
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if isinstance(value, Mapping):
            parts = [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple):
            parts = value
        elif isinstance(value, (_Tensor, *PLAIN)):
            continue
        else:
            return f"holds a value of type {type(value).__name__}, which no checkpoint has"

        if depth == MAX_DEPTH:
            return "holds a part that is nested too deeply, or holds itself"
        if count + len(waiting) + len(parts) > limit:
            return "holds the same parts too many times"
        waiting += [(part, depth + 1) for part in parts]
    return None


class _Tensor:
    """The place of a tensor in a state that is read without tensors."""


class _Inventory(pickle._Unpickler):  # the one in C allocates a table as long as any index in the file
    """Reads the pickle of a checkpoint, with a _Tensor in place of each tensor.

    Nothing that the pickle names is called, apart from OrderedDict.

    storages: bytes that the pickle claims for each storage, by the storage's name.
    tensor_bytes: bytes of all tensors together.
    refused: the first name in the pickle that no plain state needs, or None.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.storages: dict[str, int] = {}
        self.tensor_bytes = 0
        self.refused: str | None = None

    def find_class(self, module: str, name: str, /) -> Any:
        """Return OrderedDict, a function that notes a tensor, or the bytes of an item of a storage."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._note_tensor
        if module == "torch" and name in ITEM_SIZES:
            return ITEM_SIZES[name]
        self.refused = self.refused or f"{module}.{name}"
        return _note_nothing

    def persistent_load(self, pid: Any) -> int:
        """Note how many bytes a storage claims, and return those of one of its items."""
        _, item_size, key, _, count = pid
        claimed = operator.index(item_size) * operator.index(count)
        self.storages[key] = max(self.storages.get(key, 0), claimed)
        return item_size

    def _note_tensor(self, item_size: int, offset: int, shape: tuple[int, ...], *_: object) -> _Tensor:
        if len(shape) > MAX_DIMS:
            raise pickle.UnpicklingError(f"a tensor of {len(shape)} dimensions")
        sizes = [operator.index(size) for size in shape]
        self.tensor_bytes += operator.index(item_size) * math.prod(sizes)
        return _Tensor()


def _note_nothing(*_: object) -> _Tensor:
    return _Tensor()
