"""What an event says: one frozen model per kind of content, told apart by `type`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

MAX_NESTING = 5
"""Deepest allowed nesting of `CompositeContent`."""


class Frozen(BaseModel):
    """Base of every value that crosses a wire or a store: immutable; unknown keys are refused."""

    # A value that does not validate may be what somebody said: the error tells where and why, never what.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    NOT_STORED: ClassVar[frozenset[str]] = frozenset()
    """Fields that a record in a store leaves out, because they are known from elsewhere."""

    @classmethod
    def trusted(cls, values: dict[str, Any]) -> Self:
        """Builds the model from values that are known to be valid, all fields given; several times as fast as
        validating, for the hot path of the room machine. The dict becomes the model's own."""
        made = _new(cls)
        _set_values(made, values)
        _set_fields(made, _ALL_FIELDS.get(cls) or _all_fields(cls))
        _set_extra(made, None)
        _set_private(made, None)
        return made

    @classmethod
    def made(cls, **values: Any) -> Self:
        """As `trusted`, with the defaults of what is not given."""
        template, factories, names = _TEMPLATES.get(cls) or _template(cls)
        fields = template.copy()
        fields.update(values)
        for name, factory in factories:
            if name not in values:
                fields[name] = factory()
        made = _new(cls)  # As in `trusted`: this is where most models come from.
        _set_values(made, fields)
        _set_fields(made, names)
        _set_extra(made, None)
        _set_private(made, None)
        return made

    def lean(self) -> Self:
        """The same model without the memory of which fields were given, its fields in a dict that shares its keys: a
        third of the size, for what is kept in numbers."""
        kind = type(self)
        all_fields = _ALL_FIELDS.get(kind) or _all_fields(kind)
        if self.__pydantic_fields_set__ is not all_fields:
            fields = (_TEMPLATES.get(kind) or _template(kind))[0].copy()
            fields.update(self.__dict__)
            _set_values(self, fields)
            _set_fields(self, all_fields)
        return self

    def replaced(self, **update: Any) -> Self:
        """A copy with some fields replaced by values that are known to be valid."""
        fields = self.__dict__.copy()
        fields.update(update)
        return self.trusted(fields)

    def stored(self) -> dict[str, Any]:
        """As a record in a store holds it: in JSON's types, without what is as by default."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude=set(self.NOT_STORED))


# The setters of the four slots of a pydantic model: half the price of object.__setattr__ with their names.
_new = object.__new__
_slots = vars(BaseModel)
_set_values, _set_fields = _slots["__dict__"].__set__, _slots["__pydantic_fields_set__"].__set__
_set_extra, _set_private = _slots["__pydantic_extra__"].__set__, _slots["__pydantic_private__"].__set__
_ALL_FIELDS: dict[type[BaseModel], set[str]] = {}


def _all_fields(cls: type[BaseModel]) -> set[str]:
    return _ALL_FIELDS.setdefault(cls, set(cls.model_fields))


_Template = tuple[dict[str, Any], tuple[tuple[str, Callable[[], Any]], ...], set[str]]
_TEMPLATES: dict[type[BaseModel], _Template] = {}


def _template(cls: type[BaseModel]) -> _Template:
    """All fields of a model in their order with their defaults, and those that need a fresh one each time."""
    fields = cls.model_fields
    defaults = {name: None if field.is_required() else field.default for name, field in fields.items()}
    factories = ((name, field.default_factory) for name, field in fields.items() if field.default_factory is not None)
    return _TEMPLATES.setdefault(cls, (sharing(defaults), tuple(cast("Any", factories)), _all_fields(cls)))


def sharing(fields: dict[str, Any]) -> dict[str, Any]:
    """The same in a dict whose copies share its keys, as those of plain objects do: they are half as big as others, and
    sooner made."""
    shape = type("_Shape", (), {})
    one: object = shape()
    for _ in range(32):  # Python keeps space for further fields in the first objects of a class.
        one = shape()
        for name, value in fields.items():
            setattr(one, name, value)
    return vars(one).copy()


def blank(cls: type[BaseModel]) -> Callable[[], dict[str, Any]]:
    """What makes the fields of a model for `trusted`, with their defaults: a dict `sharing` its keys with all others of
    its kind. What has no default, or a fresh one each time, is left to be filled in."""
    return _template(cls)[0].copy


def valid_text(text: str) -> str:
    """Text that every store and wire takes: halves of a surrogate pair are put together, lone ones replaced."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def vendor_text(text: str) -> str:
    """What a vendor calls something, as every store takes it in a key or an index: no NUL either."""
    text = valid_text(text)
    return text.replace("\0", "\ufffd") if "\0" in text else text


VendorText = Annotated[str, AfterValidator(vendor_text)]
_T = TypeVar("_T")


def valid(value: _T) -> _T:
    """The same with `valid_text` everywhere inside; the very same object where nothing was wrong."""
    return value if _sound(value) else cast("_T", _valid(value))


_PLAIN: set[type] = {bool, int, float, bytes, datetime}
"""Types that hold no text of their own; each enum is added when it is met."""


def _sound(value: Any) -> bool:
    """Whether there is surely nothing to replace: a look at each field tells it of most messages."""
    fields: Iterable[Any] = vars(value).values() if isinstance(value, Frozen) else (value,)
    for one in fields:
        if one is None:
            continue
        kind = type(one)  # pyright: ignore[reportUnknownVariableType] - whatever it is
        if kind is str:
            if not one.isascii():
                return False
        elif kind is tuple or kind is list or kind is dict:
            if one and not _all_sound(one):
                return False
        elif kind in _PLAIN:
            continue
        elif issubclass(kind, Enum):
            _PLAIN.add(kind)
        elif not (isinstance(one, Frozen) and _sound(one)):
            return False
    return True


def _all_sound(many: Any) -> bool:
    values: Iterable[Any] = cast("dict[Any, Any]", many).values() if isinstance(many, dict) else ()
    return all(map(_sound, cast("Iterable[Any]", many))) and all(map(_sound, values))


def plain(value: Any, levels: int = 8) -> bool:
    """Whether JSON surely takes `value` as it is; told in a fraction of the time that writing it takes. What is nested
    deeper than `levels` is not looked at."""
    many: Iterable[Any] = (value,)
    if isinstance(value, dict):
        table = cast("dict[Any, Any]", value)
        for name in table:
            if type(name) is not str or not name.isascii():
                return False
        many = table.values()
    elif isinstance(value, (list, tuple)):
        many = cast("list[Any]", value)
    for one in many:
        kind = type(one)  # pyright: ignore[reportUnknownVariableType] - as above
        if kind is str:
            if not one.isascii():
                return False
        elif kind is dict or kind is list or kind is tuple:
            if not levels or not plain(one, levels - 1):
                return False
        elif one is not None and kind is not int and kind is not bool:
            return False
    return True


def _valid(value: Any) -> Any:
    if isinstance(value, str):
        # Members of an enum are text too, and always valid.
        return value if value.isascii() else valid_text(value)
    if isinstance(value, Frozen):
        changed = _changed(vars(value))
        return value.replaced(**changed) if changed else value
    if isinstance(value, dict):
        table = cast("dict[Any, Any]", value)
        if _changed(table) or any(_valid(name) is not name for name in table):
            return {_valid(name): _valid(one) for name, one in table.items()}
        return table
    if type(value) is list or type(value) is tuple:
        items = cast("list[Any] | tuple[Any, ...]", value)
        fresh = [_valid(one) for one in items]
        if any(new is not old for new, old in zip(fresh, items, strict=True)):
            return fresh if isinstance(items, list) else tuple(fresh)
        return items
    return value


def _changed(fields: Mapping[Any, Any]) -> dict[Any, Any]:
    return {name: new for name, old in fields.items() if (new := _valid(old)) is not old}


class TextContent(Frozen):
    type: Literal["text"] = "text"
    text: str
    language: str | None = None


class Button(Frozen):
    label: str
    value: str | None = None
    url: str | None = None


class Card(Frozen):
    title: str
    text: str | None = None
    image_url: str | None = None
    buttons: tuple[Button, ...] = ()


class RichContent(Frozen):
    """Formatted text. `plain_text` is what text-only channels show; without it the markup is stripped."""

    type: Literal["rich"] = "rich"
    text: str
    format: Literal["markdown", "html"] = "markdown"
    plain_text: str | None = None
    buttons: tuple[Button, ...] = ()
    cards: tuple[Card, ...] = ()
    quick_replies: tuple[str, ...] = ()


class MediaContent(Frozen):
    """A file: `url` is http(s):, data: or blob: (the kit's BlobStore)."""

    type: Literal["media"] = "media"
    url: str
    mime_type: str
    filename: str | None = None
    caption: str | None = None
    size_bytes: int | None = None


class LocationContent(Frozen):
    type: Literal["location"] = "location"
    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)
    label: str | None = None
    address: str | None = None


class AudioContent(Frozen):
    type: Literal["audio"] = "audio"
    url: str
    mime_type: str = "audio/wav"
    duration_ms: int | None = None
    size_bytes: int | None = None
    transcript: str | None = None


class VideoContent(Frozen):
    type: Literal["video"] = "video"
    url: str
    mime_type: str = "video/mp4"
    duration_ms: int | None = None
    size_bytes: int | None = None
    caption: str | None = None
    thumbnail_url: str | None = None


class TemplateContent(Frozen):
    type: Literal["template"] = "template"
    template_id: str
    language: str | None = None
    parameters: dict[str, str] = Field(default_factory=dict)
    fallback: str | None = None


class SystemContent(Frozen):
    """Written by the framework. `code` is stable; `message` comes from the message catalogue."""

    type: Literal["system"] = "system"
    code: str
    message: str = ""
    data: dict[str, Any] = Field(default_factory=dict)


class EditContent(Frozen):
    type: Literal["edit"] = "edit"
    target_event_id: str
    new_content: Content
    edit_source: str = "sender"

    @model_validator(mode="after")
    def _no_action_inside(self) -> EditContent:
        _refuse_actions(self.new_content)
        return self


class DeleteContent(Frozen):
    type: Literal["delete"] = "delete"
    target_event_id: str
    delete_type: str = "sender"
    reason: str | None = None


class ReactionContent(Frozen):
    type: Literal["reaction"] = "reaction"
    target_event_id: str
    emoji: str
    removed: bool = False


class ToolCallContent(Frozen):
    """One step of a tool call's life, as the room's log keeps it."""

    type: Literal["tool_call"] = "tool_call"
    call_id: str
    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    status: Literal["pending", "completed", "failed", "denied", "cancelled", "unknown_outcome"] = "pending"
    result: str | None = None
    error: str | None = None
    duration_ms: int | None = None


class UnknownContent(Frozen):
    """A kind of message that the channel's parser does not know: visible, never dropped."""

    type: Literal["unknown"] = "unknown"
    kind: str
    text: str | None = None


class CompositeContent(Frozen):
    type: Literal["composite"] = "composite"
    parts: tuple[Content, ...]

    @model_validator(mode="after")
    def _bounded_nesting(self) -> CompositeContent:
        if _depth(self) > MAX_NESTING:
            raise ValueError(f"composite content is nested deeper than {MAX_NESTING}: flatten its parts")
        for part in self.parts:
            _refuse_actions(part)
        return self


Content = Annotated[
    TextContent
    | RichContent
    | MediaContent
    | LocationContent
    | AudioContent
    | VideoContent
    | TemplateContent
    | SystemContent
    | EditContent
    | DeleteContent
    | ReactionContent
    | ToolCallContent
    | UnknownContent
    | CompositeContent,
    Field(discriminator="type"),
]

EditContent.model_rebuild()
CompositeContent.model_rebuild()


def _refuse_actions(content: object) -> None:
    """Composites have looked at their own parts already."""
    if isinstance(content, (EditContent, DeleteContent)):
        kind = content.type
        raise ValueError(f"content of type {kind} stands alone: send it by itself")  # noqa: TRY004 - for pydantic


def _depth(content: object) -> int:
    if isinstance(content, CompositeContent):
        return 1 + max((_depth(part) for part in content.parts), default=0)
    return 0


def text_of(content: object) -> str:
    """The human-readable text inside any content, empty when there is none."""
    match content:
        case TextContent(text=text) | RichContent(text=text):
            return text
        case MediaContent(caption=text) | VideoContent(caption=text) | AudioContent(transcript=text):
            return text or ""
        case LocationContent(label=label, address=address):
            return label or address or ""
        case TemplateContent(fallback=text) | UnknownContent(text=text):
            return text or ""
        case SystemContent(message=text):
            return text
        case EditContent(new_content=inner):
            return text_of(inner)
        case CompositeContent(parts=parts):
            return "\n".join(filter(None, map(text_of, parts)))
        case _:
            return ""
