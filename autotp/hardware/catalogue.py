"""The profiles that come with the package, and those in files of the user's."""

import difflib
import json
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from autotp.errors import ProfileError
from autotp.hardware.cluster import ClusterProfile, device_from_json, validate
from autotp.hardware.profile import DeviceProfile

_PROFILES = files("autotp.profiles")


def list_clusters() -> list[str]:
    """Names of the clusters that come with the package, sorted."""
    return _names("clusters")


def list_devices() -> list[str]:
    """Names of the devices that come with the package, sorted."""
    return _names("gpus")


def load_device(name: str) -> DeviceProfile:
    """A device of the catalogue by name. Raises ProfileError, which lists the known ones."""
    return device_from_json(_device_json(name))


def load_cluster(name_or_path: str | Path) -> ClusterProfile:
    """A cluster of the catalogue by name, or any cluster from a JSON file (a path ending in .json, or with a slash).

    A file may name devices of the catalogue without repeating their profiles. Raises ProfileError for an unknown name
    (listing the known ones), an unreadable file, or one that does not fit profiles/schema.json.
    """
    text = str(name_or_path)
    if text in list_clusters():
        return _cluster(_read(_PROFILES / "clusters" / f"{text}.json"), f"cluster {text}")
    path = Path(name_or_path)
    if path.suffix == ".json" or len(path.parts) > 1:
        return _cluster(_read(path), text)
    close = difflib.get_close_matches(text, list_clusters(), n=1, cutoff=0.4)
    hint = f"did you mean {close[0]}? " if close else ""
    raise ProfileError(f"unknown cluster {text!r}: {hint}Known are {', '.join(list_clusters())}; or give a .json file")


def _cluster(data: Any, where: str) -> ClusterProfile:
    if isinstance(data, dict) and isinstance(data.get("devices"), list):
        own = data.get("device_profiles", {})
        if isinstance(own, dict):
            named = [name for name in data["devices"] if isinstance(name, str) and name not in own]
            data = {**data, "device_profiles": {**own, **{name: _device_json(name) for name in dict.fromkeys(named)}}}
    return ClusterProfile.from_json(data, where)


def _device_json(name: str) -> Any:
    if name not in list_devices():
        raise ProfileError(f"unknown device {name!r}: known are {', '.join(list_devices())}")
    data = _read(_PROFILES / "gpus" / f"{name}.json")
    validate(data, "device", f"device {name}")
    return data


def _names(folder: str) -> list[str]:
    entries = (_PROFILES / folder).iterdir()
    return sorted(entry.name.removesuffix(".json") for entry in entries if entry.name.endswith(".json"))


def _read(path: Traversable | Path) -> Any:
    try:
        return json.loads(path.read_text(), parse_constant=_refuse)
    except OSError as error:
        raise ProfileError(f"cannot read the profile {path}: {error.strerror}") from error
    except ValueError as error:
        raise ProfileError(f"the profile {path} is not JSON: {error}") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number that JSON allows")
