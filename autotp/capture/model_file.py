"""Where a model comes from: a Python model file, or a Hugging Face config."""

import hashlib
import importlib
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from torch import nn

from autotp.errors import CaptureError


@dataclass(frozen=True)
class ModelSource:
    """A model that can be built any number of times, and the inputs to capture it with.

    `origin` is plain JSON (path, sha256 of the file, options, batch, seq), from which `reload_model` makes it again.
    """

    build: Callable[[], nn.Module]
    example_inputs: Callable[[], dict[str, Any] | tuple[Any, ...]]
    origin: Mapping[str, Any] = field(default_factory=dict)


def load_model(
    path: str, options: Mapping[str, Any] | None = None, batch: int | None = None, seq: int | None = None
) -> ModelSource:
    """The model of a Python file with `build_model` and `example_inputs`, of a config.json, or of a folder with one.

    Each function gets the options it has parameters for. `batch` and `seq` are options of that name for a model file,
    and the shape of the inputs for a config. Raises CaptureError where there is no such model, or no such option.
    """
    options = dict(options or {})
    for name, size in (("batch", batch), ("seq", seq)):
        if size is not None and size < 1:
            raise CaptureError(f"{name}={size}: it must be at least 1")
    if os.path.isdir(path):
        config = os.path.join(path, "config.json")
        if not os.path.isfile(config):
            raise CaptureError(
                f"{path} is a folder without a config.json: give a Python model file, or a Hugging Face folder"
            )
        return _from_config(path, config, options, batch, seq)
    if not os.path.isfile(path):
        raise CaptureError(f"there is no model file {path}")
    origin = {"path": path, "sha256": _sha256(path), "options": options, "batch": batch, "seq": seq}
    if path.endswith(".json"):
        return _from_config(path, path, options, batch, seq)
    if not path.endswith(".py"):
        raise CaptureError(f"{path} is neither a Python model file (.py) nor a Hugging Face config (.json)")
    return _from_python(path, options, batch, seq, origin)


def reload_model(origin: Mapping[str, Any]) -> ModelSource:
    """The source that `ModelSource.origin` describes. Raises CaptureError where its file has changed or is gone."""
    source = load_model(origin["path"], origin["options"], origin["batch"], origin["seq"])
    if source.origin["sha256"] != origin["sha256"]:
        raise CaptureError(f"{origin['path']} has changed since the plan was made: plan again")
    return source


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


# ---------------------------------------------------------------- Python files


def _from_python(
    path: str, options: dict[str, Any], batch: int | None, seq: int | None, origin: Mapping[str, Any]
) -> ModelSource:
    module = _run_file(path)
    build = _function(module, "build_model", path)
    inputs = _function(module, "example_inputs", path)
    chosen = dict(options)
    for name, size in (("batch", batch), ("seq", seq)):
        if size is not None:
            if name in options:
                raise CaptureError(f"{name} is given twice: as --{name} and as an option")
            chosen[name] = size
    known = _option_names(build) | _option_names(inputs)
    takes_any = _takes_any(build) or _takes_any(inputs)
    unknown = sorted(set(chosen) - known)
    if unknown and not takes_any:
        raise CaptureError(
            f"{path} has no option {', '.join(unknown)}; its options are {', '.join(sorted(known)) or '(none)'}"
        )
    return ModelSource(
        lambda: _checked(build, chosen, path, (nn.Module,), "an nn.Module"),
        lambda: _checked(inputs, chosen, path, (dict, tuple), "a dict of keyword or a tuple of positional arguments"),
        origin,
    )


def _run_file(path: str) -> ModuleType:
    # Named by its path, so that two model files of one name do not meet in sys.modules, where classes look for theirs.
    name = f"autotp_model_{hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CaptureError(f"{path} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with _siblings_importable(path):
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise CaptureError(f"{path} cannot be run{_where(error, path)}: {_one_line(error)}") from error
    return module


@contextmanager
def _siblings_importable(path: str) -> Iterator[None]:
    folder = os.path.dirname(os.path.abspath(path))
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _function(module: ModuleType, name: str, path: str) -> Callable[..., Any]:
    function = getattr(module, name, None)
    if not callable(function):
        raise CaptureError(
            f"{path} defines no {name}(): a model file needs build_model(**options) -> nn.Module and "
            "example_inputs(**options) -> dict or tuple"
        )
    return function  # type: ignore[no-any-return]


def _option_names(function: Callable[..., Any]) -> set[str]:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name for name, p in inspect.signature(function).parameters.items() if p.kind in named}


def _takes_any(function: Callable[..., Any]) -> bool:
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def _checked(
    function: Callable[..., Any], options: Mapping[str, Any], path: str, types: tuple[type, ...], wanted: str
) -> Any:
    names = set(options) if _takes_any(function) else _option_names(function) & set(options)
    name = getattr(function, "__name__", "function")
    with _siblings_importable(path):
        try:
            result = function(**{key: options[key] for key in sorted(names)})
        except Exception as error:
            raise CaptureError(f"{path}: {name}() failed{_where(error, path)}: {_one_line(error)}") from error
    if not isinstance(result, types):
        raise CaptureError(f"{path}: {name}() must return {wanted}, not {type(result).__name__}")
    return result


def _where(error: BaseException, path: str) -> str:
    """The last line of the model file that was being run, e.g. ` at line 12`."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None and not isinstance(error, SyntaxError):
        if os.path.abspath(trace.tb_frame.f_code.co_filename) == os.path.abspath(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" at line {line}" if line else ""


def _one_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


# ---------------------------------------------------------------- Hugging Face configs


def _from_config(path: str, config: str, options: Mapping[str, Any], batch: int | None, seq: int | None) -> ModelSource:
    if options:
        raise CaptureError(f"{path} is a Hugging Face config and takes no options, only a batch and a sequence length")
    try:
        with open(config, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        raise CaptureError(f"{config} is not JSON: {error}") from error
    if not isinstance(content, dict) or "model_type" not in content:
        raise CaptureError(f"{config} is not a Hugging Face config: it has no model_type")
    hf = load_hf(path)
    origin: dict[str, Any] = {"path": path, "sha256": _sha256(config), "options": {}, "batch": batch, "seq": seq}
    return ModelSource(lambda: hf.causal_lm(config), lambda: hf.causal_lm_inputs(config, batch, seq), origin)


def load_hf(why: str) -> ModuleType:
    """The module `autotp.capture.hf`. Raises CaptureError where transformers is not installed."""
    # By name and only here: importing transformers takes seconds, and autotp works without it being installed.
    try:
        return importlib.import_module("autotp.capture.hf")
    except ModuleNotFoundError as error:
        raise CaptureError(f"{why} needs the package transformers: pip install 'autotp[transformers]'") from error
