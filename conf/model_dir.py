"""Find the directory of the weights: config.yaml, tokenizers, model.pt. Nothing is downloaded.

What is named may be a directory, or a model by its name on a hub, of which a copy is then looked
for where both hubs' own clients put one: `--local-dir models/NAME`, or their caches.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from conf.errors import ConfigError, DataError
from conf.layers import Layer, merge, who_said
from conf.reading import flatten, read_yaml

RELEASED = "FunAudioLLM/Fun-ASR-Nano-2512"
"""The released model, on ModelScope and on Hugging Face alike."""
LOCAL = Path("models")
"""Where the messages and the README tell people to download to."""
FILES = ("config.yaml", "model.pt")
"""What a whole copy holds beside tokenizers; a download that broke off lacks the second."""

DESCRIPTION = "configuration.json"
"""In its `file_path_metas` stock FunASR looks for arguments that are files of the directory."""
_OWN_FILES = {"config": "config.yaml", "init_param": "model.pt"}
"""What is read here whatever is named: another file would be read by stock alone, unchecked."""
FILE_KEYS = re.compile(
    r"jieba_usr_dict|(\w+_conf\.)+(init_param_path|vocab_path|cmvn_file|filters_path|bpemodel|"
    r"token_list|seg_dict|seg_dict_file|jieba_usr_dict|non_linguistic_symbols)"
)
"""Every key under which stock FunASR takes a file that is no code, whatever the model."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def find_model_dir(model: Path | str | None, layers: Sequence[Layer]) -> Path | None:
    """The directory of the weights.

    Args:
        model: A directory, or a hub's name of which there is a local copy; comes first.
        layers: Where `init_param` or `model` may stand. A directory named by `model` comes before
            that of `init_param`; a hub's name comes after it. A checkpoint of this trainer
            belongs to the model directory of the run that wrote it.

    Raises:
        ConfigError: If what is named is not there.
    """
    settings, where = merge(layers), who_said(layers)
    named, init_param, hub = settings.get("model"), settings.get("init_param"), settings.get("hub")
    if init_param is not None and Path(str(init_param)).is_dir():
        whole = all((Path(str(init_param)) / name).is_file() for name in FILES)
        instead = f"{init_param}/model.pt, or --model {init_param}" if whole else "MODEL/model.pt"
        raise ConfigError(
            f"{where('init_param')}: init_param: got the directory {init_param}, expected a file "
            f"of weights such as {instead}"
        )
    if init_param is not None and not Path(str(init_param)).is_file():
        raise ConfigError(
            f"{where('init_param')}: init_param: got {init_param}, expected a file of weights"
            f" such as MODEL/model.pt{_download_hint(str(Path(str(init_param)).parent))}"
        )
    if model is not None:
        return _complete(find_copy(str(model), "--model", hub=hub), "--model")
    if init_param is not None and not (isinstance(named, str) and Path(named).is_dir()):
        return _beside(Path(init_param), f"{where('init_param')}: init_param")
    if is_place(named):
        label = f"{where('model')}: model"
        return _complete(find_copy(str(named), label, hub=hub), label)
    return None


def is_place(model: Any) -> bool:
    """Whether `model` is a directory or a hub's name, not the name of a model class."""
    return isinstance(model, str) and ("/" in model or Path(model).is_dir())


def find_copy(model: str, label: str, *, hub: object = None) -> Path:
    """The directory that is named, or the copy on this machine of the model that is.

    Args:
        model: A directory or a hub's name, `OWNER/NAME`.
        label: Who says so, for the message.
        hub: `hf` looks into Hugging Face's cache before ModelScope's.

    Raises:
        ConfigError: There is neither; one line with the commands that fetch it.
    """
    found, part = _look_up(model, hub)
    if found is not None:
        return found
    if not (hint := _download_hint(model)):
        raise ConfigError(f"{label}: got {model!r} (no such directory), expected a model directory")
    raise ConfigError(
        f"{label}: got {model}{part}, expected a model directory or a hub's name with a copy on "
        f"this machine{hint}"
    )


def with_copy(model: str) -> str:
    """The place of the copy on this machine where a hub's name is given; else what is given."""
    found, _ = _look_up(model, None)
    return model if found is None or Path(model).is_dir() else str(found)


def _look_up(model: str, hub: object) -> tuple[Path | None, str]:
    """A whole copy, or what to say about a part of one."""
    if Path(model).expanduser().is_dir():
        return Path(model).expanduser(), ""
    part = ""
    for copy in _copies(model, hub) if _HUB_NAME.fullmatch(model) else ():
        missing = [name for name in FILES if not (copy / name).is_file()]
        if not missing:
            return copy, ""
        if copy.is_dir():
            part = part or f" (of which {copy} is a part, without {' and '.join(missing)})"
    return None, part


def _download_hint(model: str) -> str:
    """What to download and where to put it, if that is known."""
    if Path(model).name == Path(RELEASED).name:
        model = RELEASED
    elif not _HUB_NAME.fullmatch(model):
        return ""
    target = LOCAL / Path(model).name
    return (
        "; nothing is downloaded here. With network run "
        f"`modelscope download {model} --local-dir {target}` or "
        f"`hf download {model} --local-dir {target}`; without, copy that directory to {target}, "
        "or name the place where it lies"
    )


def _copies(name: str, hub: object) -> Iterator[Path]:
    """Directories that may be copies of a hub's model, the likeliest first."""
    yield LOCAL / Path(name).name
    caches = [_in_modelscope(name), _in_hugging_face(name)]
    for cache in reversed(caches) if hub in ("hf", "huggingface") else caches:
        yield from cache


def _in_modelscope(name: str) -> Iterator[Path]:
    """As modelscope_hub 0.5 lays copies out, and as modelscope before 1.38 did."""
    root = Path(os.environ.get("MODELSCOPE_CACHE") or "~/.cache/modelscope").expanduser()
    snapshots = root / "models" / name.replace("/", "--") / "snapshots"
    yield from (snapshots / "master", snapshots / "main")
    yield from sorted(snapshots.glob("*"))
    owner, model = name.split("/")
    for spelt in dict.fromkeys((model.replace(".", "___"), model)):
        for place in ("models", "hub/models", "hub", "."):
            yield root / place / owner / spelt


def _in_hugging_face(name: str) -> Iterator[Path]:
    """As huggingface_hub lays copies out: `refs/main` names the snapshot that was asked for."""
    environ = os.environ
    user = environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = environ.get("HF_HOME") or f"{user}/huggingface"
    root = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    repository = Path(root).expanduser() / f"models--{name.replace('/', '--')}"
    main = repository / "refs" / "main"
    if main.is_file():
        yield repository / "snapshots" / main.read_text(encoding="utf-8").strip()
    yield from sorted((repository / "snapshots").glob("*"))


def _beside(init_param: Path, label: str) -> Path:
    run = init_param.parent.parent / "config.yaml"
    if init_param.suffix == ".safetensors" and run.is_file():
        document = read_yaml(run)
        layer = Layer(str(run), flatten(document.values), document)
        if (found := find_model_dir(None, [layer])) is not None:
            return found
    hint = " (--model DIR names one for weights that lie elsewhere)"
    return _complete(init_param.parent, label, hint)


def _complete(directory: Path, label: str, hint: str = "") -> Path:
    if not (directory / "config.yaml").is_file():
        raise ConfigError(
            f"{label}: got {directory}, expected a model directory: it holds no config.yaml{hint}"
        )
    return directory


def file_paths(directory: Path) -> dict[str, Any]:
    """The `file_path_metas` of a model directory, of which nothing runs code or leads elsewhere.

    Stock FunASR takes whatever stands there as its own arguments, `trust_remote_code` and
    `remote_code` among them, so this comes before it is given a directory.
    trainer/export/served_model.py, which travels without this package, says the same.

    Raises:
        DataError: There is a name that is not the name of a file, or a path that leaves the
            directory; one line for each.
    """
    path = directory / DESCRIPTION
    if not path.is_file():
        return {}
    try:
        metas = json.loads(path.read_text(encoding="utf-8")).get("file_path_metas", {})
    except (OSError, ValueError, AttributeError):
        raise DataError(f"{path}: got something else, expected a JSON object in UTF-8") from None
    if not isinstance(metas, dict):
        raise DataError(f"{path}: file_path_metas: got {metas!r:.80}, expected names with paths")
    if problems := list(_path_problems(directory, metas)):
        raise DataError(f"{path}: file_path_metas.{problem}" for problem in problems)
    return metas


def _path_problems(directory: Path, metas: Mapping[str, Any], block: str = "") -> Iterator[str]:
    for name, value in metas.items():
        key = f"{block}{name}"
        if isinstance(value, dict):
            yield from _path_problems(directory, value, f"{key}.")
        elif key in _OWN_FILES:
            if value != _OWN_FILES[key]:
                yield f"{key}: got {value!r:.80}, expected {_OWN_FILES[key]}"
        elif not FILE_KEYS.fullmatch(key):
            yield (
                f"{key}: got {value!r:.80}, expected no such key: no foreign code is run"
                " (keys of files are *_conf.init_param_path, vocab_path, cmvn_file and the like)"
            )
        elif not isinstance(value, str) or not is_inside(directory, value):
            yield f"{key}: got {value!r:.80}, expected a path that stays inside the directory"


def is_inside(directory: Path, path: str) -> bool:
    """Whether a relative path stays in a model directory, links followed.

    A hub's cache may keep the content of a snapshot's files beside it, as links.
    """
    if Path(path).is_absolute() or ".." in Path(path).parts or "\0" in path:
        return False
    own = directory.resolve()
    roots = [own, own.parent.parent / "blobs"] if own.parent.name == "snapshots" else [own]
    found = (own / path).resolve()
    return any(found.is_relative_to(root) for root in roots)
