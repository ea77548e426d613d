"""The message, and the client of the queue it travels in."""

from __future__ import annotations

import math
import re
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NotRequired, TypeVar
from uuid import UUID, uuid4

import pytest
from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, computed_field
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from s3_checkpoint import ConfigurationError, InvalidArgumentError, S3Settings, StateEncodingError
from s3_checkpoint._format.message_json import decoded
from s3_checkpoint.superstep_queue import SuperstepMessage, SuperstepQueue, queue_client_for
from tests.s3.hostile_s3 import answer, hostile_s3

SETTINGS = S3Settings(bucket="bucket")


class State(BaseModel):
    n: int = 0
    name: str = ""


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://sqs.eu-west-1.amazonaws.com/123456789012/runs", "eu-west-1"),
        ("https://sqs.us-gov-east-1.amazonaws.com/123456789012/runs.fifo", "us-gov-east-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/123456789012/runs", "cn-north-1"),
        ("https://vpce-0a1b-2c3d.sqs.ap-south-1.vpce.amazonaws.com/123456789012/runs", "ap-south-1"),
        ("http://127.0.0.1:5000/123456789012/runs", "us-east-1"),
    ],
)
async def test_the_queue_is_asked_where_its_url_says_wherever_the_bucket_is(url: str, region: str) -> None:
    settings = SETTINGS if region == "us-east-1" else SETTINGS.model_copy(update={"region_name": "sa-east-1"})

    async with queue_client_for(url, settings) as client:
        assert client.meta.region_name == region
        assert client.meta.endpoint_url == url[: url.index("/", 8)]


@pytest.mark.parametrize(
    ("url", "said"),
    [("runs", "must begin with https"), ("https://queue.amazonaws.com/1/runs", "You must specify a region")],
)
async def test_a_url_that_leads_nowhere_is_a_clear_error(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        async with queue_client_for(url, SETTINGS):
            pass


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_message_is_sent_to_no_other_host(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """Story: the queue's client followed any redirect, with the state that the message may hold."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    async with hostile_s3() as hostile, hostile_s3() as elsewhere:
        hostile.answer = answer(status, b"", f"Location: {elsewhere.url}/\r\n".encode())
        url = f"{hostile.url}/123456789012/runs"
        async with queue_client_for(url, SETTINGS.model_copy(update={"max_attempts": 1})) as client:
            with pytest.raises(ClientError):
                await SuperstepQueue(client, url).send(SuperstepMessage.begin(uuid4(), State(n=3)))

    assert len(hostile.asked) == 1
    assert elsewhere.asked == []


def test_a_message_says_only_what_is_not_self_evident_and_reads_back() -> None:
    run_id = uuid4()
    begin = SuperstepMessage.begin(run_id, State(n=3))
    proceed = SuperstepMessage(run_id=run_id, step=2)
    answer = SuperstepMessage.resume(run_id, 2, {"name": "x"})
    consent = SuperstepMessage.resume(str(run_id), 2)

    assert begin.model_dump_json() == f'{{"run_id":"{run_id}","initial":{{"n":3,"name":""}}}}'
    assert proceed.model_dump_json() == f'{{"run_id":"{run_id}","step":2}}'
    assert answer.model_dump_json() == f'{{"run_id":"{run_id}","resume_from":2,"update":{{"name":"x"}}}}'
    assert consent.model_dump_json() == f'{{"run_id":"{run_id}","resume_from":2}}'
    for message in (begin, proceed, answer, consent):
        body = message.model_dump_json()
        assert SuperstepMessage.model_validate_json(body) == message
        assert SuperstepMessage.model_validate_json(body.encode()) == message
        assert message.model_dump_json(exclude_defaults=True, indent=2) == body


class Aliased(BaseModel):
    user: str = Field(default="anonymous", alias="userName")


class Turtle(BaseModel):
    kind: Literal["turtle"] = "turtle"
    speed: int = 1


class Snail(BaseModel):
    kind: Literal["snail"] = "snail"
    speed: int = 1


class Zoo(BaseModel):
    pet: Turtle | Snail = Turtle()
    tagged: Annotated[Turtle | Snail, Field(discriminator="kind")] = Turtle()
    others: list[Turtle | Snail] = []


class Prices(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    amount: Decimal = Decimal(0)
    amounts: dict[str, list[Decimal]] = {}
    seal: bytes = b""
    at: datetime | None = None
    took: timedelta = timedelta()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def doubled(self) -> Decimal:
        return self.amount * 2


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    amount: Decimal
    tags: frozenset[str] = frozenset()
    place: tuple[int, str] = (0, "")


@dataclass
class Basket:
    owner: Aliased
    prices: list[Decimal]
    zoo: Zoo | None = None


@pydantic_dataclass
class Checked:
    amount: Decimal
    user: str = Field(alias="userName")


class Typed(TypedDict):
    owner: Aliased
    amount: Decimal
    pets: list[Turtle | Snail]
    basket: Basket
    at: datetime
    run: UUID
    by_number: dict[int, tuple[Decimal, str]]
    left_out: NotRequired[str]


T = TypeVar("T")


class Box(BaseModel, Generic[T]):
    content: T


LONG = Decimal("12345678901234567890.12345678901234567890")
BASKET = Basket(Aliased(userName="Bob"), [LONG, Decimal("1.10")], Zoo(pet=Snail()))
VALUES: dict[str, tuple[Any, Any]] = {
    "an alias": (Aliased(userName="Bob"), Aliased),
    "an alias with its default": (Aliased.model_validate({}), Aliased),
    "a union told apart by what is a default": (Zoo(pet=Snail(), tagged=Snail(), others=[Snail(), Turtle()]), Zoo),
    "decimals": (Prices(amount=LONG, amounts={"a": [LONG, Decimal("1E+30"), Decimal("1.10")]}), Prices),
    "bytes, times": (Prices(seal=b"\xff", at=datetime(2026, 11, 1, tzinfo=UTC), took=timedelta(days=3)), Prices),
    "a strict model": (Strict(amount=LONG, tags=frozenset("a"), place=(1, "x")), Strict),
    "a dataclass": (BASKET, Basket),
    "a dataclass of pydantic's, with an alias": (Checked(userName="Bob", amount=LONG), Checked),
    "a TypedDict": (
        Typed(
            owner=Aliased(userName="Bob"),
            amount=LONG,
            pets=[Snail(), Turtle()],
            basket=BASKET,
            at=datetime(2026, 11, 1, tzinfo=UTC),
            run=UUID(int=7),
            by_number={1: (LONG, "x")},
        ),
        Typed,
    ),
    "a generic model": (Box[Zoo](content=Zoo(pet=Snail())), Box[Zoo]),
    "plain JSON": ({"a": [1, 2.5, None, True, "é\n\u2028", {"b": 10**40}]}, dict[str, JsonValue]),
    "a list": ([Snail(), Turtle()], list[Turtle | Snail]),
    "one of a union": (Snail(), Turtle | Snail),
    "a set": ({1, 2}, set[int]),
    "text": ("null", str),
    "a number": (0, int),
}


@pytest.mark.parametrize("given", [False, True], ids=["own type", "type given"])
@pytest.mark.parametrize("name", VALUES)
def test_a_state_and_an_update_arrive_as_they_were_sent(name: str, given: bool) -> None:
    """The same type and value, as the commit of it would store: by name, with every tag and every digit."""
    value, as_type = VALUES[name]
    before = deepcopy(value)
    adapter: TypeAdapter[Any] = TypeAdapter(as_type)

    begin = SuperstepMessage.begin(uuid4(), value, state_type=as_type if given else None)
    answer = SuperstepMessage.resume(uuid4(), 3, value, update_type=adapter if given else None)
    begun = SuperstepMessage.model_validate_json(begin.model_dump_json()).initial_json
    answered = SuperstepMessage.model_validate_json(answer.model_dump_json()).update_json

    for text in (begun, answered):
        arrived = decoded(adapter, text)
        assert arrived == value == before
        assert re.sub(r"TzInfo\((0|UTC)\)", "datetime.timezone.utc", repr(arrived)) == repr(value)
    assert SuperstepMessage(run_id=begin.run_id, initial=value).initial == begin.initial


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": math.nan}, "$.a"),
        ([1.0, math.inf], "$[1]"),
        ({"a": "\ud800"}, "$.a"),
        ({"a": [object()]}, "$.a[0]"),
        ({1: "a", "1": "b"}, "$"),
        ({"a": {(1, 2): "b"}}, "$.a"),
        ({"a": Snail.model_construct(speed="fast")}, "$.a.speed"),
        ({"a": Box[Any](content=LONG)}, "$.a.content"),
        (Prices.model_construct(amount=Decimal("NaN")), "$.amount"),
    ],
)
def test_values_that_would_not_arrive_as_they_are_are_refused_where_they_are_sent(value: Any, path: str) -> None:
    """With the path, as a commit of it would be; the dead-letter queue is no place to find out."""
    with pytest.raises(StateEncodingError) as begun:
        SuperstepMessage.begin(uuid4(), value)
    with pytest.raises(StateEncodingError) as answered:
        SuperstepMessage.resume(uuid4(), 1, value)
    with pytest.raises(StateEncodingError) as made:
        SuperstepMessage(run_id=uuid4(), initial=value)

    assert begun.value.path == answered.value.path == made.value.path == path


def test_values_that_contain_themselves_are_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)

    with pytest.raises(StateEncodingError, match="contains itself"):
        SuperstepMessage.begin(uuid4(), endless)


def test_a_state_of_another_type_than_the_handlers_is_refused_where_its_type_is_given() -> None:
    """A subclass would lose its fields, and one of two types with the same JSON would become the other."""

    class Tagless(BaseModel):
        speed: int

    class Other(BaseModel):
        speed: int

    class Larger(Other):
        size: int = 0

    with pytest.raises(StateEncodingError):
        SuperstepMessage.begin(uuid4(), Larger(speed=1, size=2), state_type=Other)
    with pytest.raises(StateEncodingError):
        SuperstepMessage.begin(uuid4(), Other(speed=1), state_type=Tagless | Other)


@pytest.mark.parametrize("build", [SuperstepMessage.begin, lambda run_id, _: SuperstepMessage.resume(run_id, 1)])
def test_a_message_for_no_run_is_refused(build: Any) -> None:
    for run_id in ("035", str(uuid4())[1:], 7):
        with pytest.raises(InvalidArgumentError, match="run_id"):
            build(run_id, State())


def test_a_message_that_begins_with_nothing_or_answers_no_step_is_refused() -> None:
    with pytest.raises(StateEncodingError, match="null cannot be told"):
        SuperstepMessage.begin(uuid4(), None)
    for step in (-1, True, "1", 2**64):
        with pytest.raises(InvalidArgumentError, match="step must be an int"):
            SuperstepMessage.resume(uuid4(), step)  # type: ignore[arg-type]


NUMBER = "0.12345678901234567890123456789"


class Mixed(BaseModel):
    exact: Decimal
    rough: float
    any: Any
    either: float | str
    text: str | Decimal
    more: list[Decimal] = []


def test_numbers_written_by_hand_keep_their_digits_where_a_decimal_has_them() -> None:
    """And stay numbers where they are for something else: pydantic reads both as floats."""
    body = (
        f'{{ "run_id" : "{uuid4()}",\n "initial": {{"exact": {NUMBER}, "rough": {NUMBER}, "any": {NUMBER}, '
        f'"either": {NUMBER}, "text": {NUMBER}, "more": [1e40, -{NUMBER}, 1.5, 12345678901234567890]}} }}\n'
    )
    message = SuperstepMessage.model_validate_json(body)

    mixed = decoded(TypeAdapter(Mixed), message.initial_json)
    alone = decoded(TypeAdapter(Box[Decimal]), f'{{"content": {NUMBER}}}')

    assert mixed.exact == Decimal(NUMBER)
    assert mixed.more == [Decimal("1e40"), Decimal(f"-{NUMBER}"), Decimal("1.5"), 12345678901234567890]
    assert (mixed.rough, mixed.any, mixed.either) == (float(NUMBER), float(NUMBER), float(NUMBER))
    assert isinstance(mixed.text, Decimal)
    assert alone.content == Decimal(NUMBER)
    with pytest.raises(ValidationError, match="finite number"):
        decoded(TypeAdapter(Box[Decimal]), '{"content": 1e400}')


@pytest.mark.parametrize(
    "number", ["1", "-1", "0.1", "1.10", "1e5", "123456789012345678901234567890", "0.30000000000000004", "5e-324"]
)
def test_numbers_that_a_float_holds_are_read_as_ever(number: str) -> None:
    assert decoded(TypeAdapter(Decimal), number) == Decimal(number)


def test_a_number_inside_a_string_is_no_number() -> None:
    text = f'{{"a": "x {NUMBER} \\" {NUMBER}", "b": {NUMBER}}}'

    found = decoded(TypeAdapter(dict[str, str | Decimal]), text)

    assert found["a"] == f'x {NUMBER} " {NUMBER}'


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"step": -1},
        {"step": 2**64},
        {"step": True},
        {"step": "1"},
        {"step": 1, "initial": {}},
        {"step": 1, "x": 1},
        {"step": 1, "resume": True},
        {"step": 1, "resume_from": 1},
        {"step": 1, "update": {}},
        {"initial": {}, "update": {}},
        {"initial": None},
    ],
)
def test_a_message_that_cannot_be_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SuperstepMessage.model_validate({"run_id": uuid4(), **fields})
