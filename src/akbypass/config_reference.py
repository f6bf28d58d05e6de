"""Writes the reference page of the configuration from its types: `python -m akbypass.config_reference`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from akbypass.config import Config


def page() -> str:
    """Return the whole page as Markdown."""
    lines = [
        "# Configuration\n\n",
        "Made from the types by `make docs`; do not edit.\n",
        "One YAML file; unknown keys are errors. `akbypass check --config FILE` verifies it, `--dump` prints it with every default.\n",
    ]
    for name, field in Config.model_fields.items():
        lines.append(f"\n## {name}\n\n{field.description}\n\n")
        lines += _table(_model(field.annotation))
    return "".join(lines)


def _model(annotation: Any) -> type[BaseModel]:
    inner = getattr(annotation, "__args__", (annotation,))[0]
    assert isinstance(inner, type) and issubclass(inner, BaseModel)
    return inner


def _table(model: type[BaseModel]) -> list[str]:
    lines = ["| key | default | meaning |\n|---|---|---|\n"]
    for name, field in model.model_fields.items():
        if field.is_required():
            default = "required"
        else:
            value = field.get_default(call_default_factory=True)
            default = f"`{value.value if hasattr(value, 'value') else value!r}`" if value is not None else "none"
        lines.append(f"| `{name}` | {default} | {field.description} |\n")
    return lines


if __name__ == "__main__":
    print(page(), end="")
