"""Graphs that exercise a checkpointer: each a builder, and the answers it must give on any of them."""

import operator
import random
from typing import Annotated, Any

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, Send, interrupt
from typing_extensions import TypedDict


class Trail(TypedDict):
    trail: Annotated[list[str], operator.add]


def leaf(name: str) -> Any:
    """A subgraph of two steps."""
    builder: Any = StateGraph(Trail)
    builder.add_node("one", lambda _: {"trail": [f"{name}.one"]})
    builder.add_node("two", lambda _: {"trail": [f"{name}.two"]})
    builder.add_edge(START, "one")
    builder.add_edge("one", "two")
    return builder


def nested(*, ask: bool = False) -> Any:
    """Two parallel branches, each a subgraph; the left one has a subgraph of its own, where a human may be asked."""

    def deep(_: Any) -> Any:
        answer = interrupt("which way?") if ask else "on"
        return {"trail": [f"deep {answer}"]}

    inner: Any = StateGraph(Trail)
    inner.add_node("deep", deep)
    inner.add_edge(START, "deep")
    left = leaf("left")
    left.add_node("inner", inner.compile())
    left.add_edge("two", "inner")
    builder: Any = StateGraph(Trail)
    builder.add_node("begin", lambda _: {"trail": ["begin"]})
    builder.add_node("left", left.compile())
    builder.add_node("right", leaf("right").compile())
    builder.add_node("end", lambda _: {"trail": ["end"]})
    builder.add_edge(START, "begin")
    builder.add_edge("begin", "left")
    builder.add_edge("begin", "right")
    builder.add_edge(["left", "right"], "end")
    return builder


def chat() -> Any:
    """Answers each message with one of its own."""

    class Messages(TypedDict):
        messages: Annotated[list[AnyMessage], add_messages]

    builder: Any = StateGraph(Messages)
    builder.add_node(
        "answer",
        lambda state: {"messages": [AIMessage(f"answer {len(state['messages'])}", id=f"a{len(state['messages'])}")]},
    )
    builder.add_edge(START, "answer")
    return builder


def tool_agent() -> Any:
    """An agent with a tool: a model that calls it once, LangGraph's own node that runs it, and an answer from that."""

    class Messages(TypedDict):
        messages: Annotated[list[AnyMessage], add_messages]

    def weather(city: str) -> str:
        """The weather in a city."""
        return f"rain in {city}"

    def model(state: Any) -> Any:
        if isinstance(last := state["messages"][-1], ToolMessage):
            return {"messages": [AIMessage(f"There is {last.content}.", id="answer")]}
        call = {"name": "weather", "args": {"city": "Oslo"}, "id": "call-1", "type": "tool_call"}
        return {"messages": [AIMessage("", tool_calls=[call], id="call")]}

    builder: Any = StateGraph(Messages)
    builder.add_node("model", model)
    builder.add_node("tools", ToolNode([weather]))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    return builder


def append(state: list[str], writes: Any) -> list[str]:
    """A reducer that order matters to."""
    return [*state, *(item for write in writes for item in (write if isinstance(write, list) else [write]))]


def delta(*, every: int = 1000, rounds: int = 6) -> Any:
    """Two parallel tasks append to a delta channel, round after round."""

    class Logged(TypedDict):
        log: Annotated[list[str], DeltaChannel(append, list, snapshot_frequency=every)]
        n: int

    builder: Any = StateGraph(Logged)
    builder.add_node("count", lambda state: {"n": state.get("n", 0) + 1})
    for name in ("zeta", "alpha"):
        builder.add_node(name, lambda state, name=name: {"log": [f"{name}{state['n']}"]})
        builder.add_edge("count", name)
    builder.add_node("again", lambda state: Command(goto="count" if state["n"] % rounds else END))
    builder.add_edge(["zeta", "alpha"], "again")
    builder.add_edge(START, "count")
    return builder


def square(task: Any) -> Any:
    """What a task of `map_reduce` does."""
    return {"squares": [task["item"] ** 2]}


def map_reduce(square: Any = square) -> Any:
    """One task per item, all at once, by `Send`; then one that sums up."""

    class Totals(TypedDict, total=False):
        items: list[int]
        squares: Annotated[list[int], operator.add]
        total: int

    builder: Any = StateGraph(Totals)
    builder.add_node("square", square)
    builder.add_node("reduce", lambda state: {"total": sum(state["squares"])})
    builder.add_conditional_edges(
        START, lambda state: [Send("square", {"item": item}) for item in state["items"]], ["square"]
    )
    builder.add_edge("square", "reduce")
    return builder


def asking() -> Any:
    """Asks two questions in one node, and one more in the next."""

    def both(_: Any) -> Any:
        first, second = interrupt("first?"), interrupt("second?")
        return {"trail": [f"{first}+{second}"]}

    builder: Any = StateGraph(Trail)
    builder.add_node("both", both)
    builder.add_node("last", lambda _: {"trail": [interrupt("last?")]})
    builder.add_edge(START, "both")
    builder.add_edge("both", "last")
    return builder


TURN = 4
"""Supersteps of a turn: the input, the model, a tool, and the model again."""


def prose(seed: int) -> str:
    """About 1.3 KB of words, another text for each seed; it compresses as English does, to a half or third."""
    chance = random.Random(seed)
    return " ".join(chance.choice(_WORDS) for _ in range(200))


_WORDS = ["".join(random.Random(n).choices("etaoinshrdlucmfwyp", k=2 + n % 9)) for n in range(3000)]


def agent(*, every: int = 100) -> Any:
    """As deepagents: messages and files in delta channels, a model, and a tool that writes a file."""

    class State(TypedDict):
        messages: Annotated[list[Any], DeltaChannel(append, list, snapshot_frequency=every)]
        files: Annotated[list[str], DeltaChannel(append, list, snapshot_frequency=every)]

    def model(state: State) -> dict[str, Any]:
        n = len(state["messages"])
        if isinstance(state["messages"][-1], ToolMessage):
            return {"messages": [AIMessage(f"done {n}. {prose(n)}", id=f"m{n}")]}
        call = {"name": "write", "args": {"path": f"/{n}"}, "id": f"call-{n}"}
        return {"messages": [AIMessage(prose(n), id=f"m{n}", tool_calls=[call])]}

    def tool(state: State) -> dict[str, Any]:
        n = len(state["messages"])
        return {
            "messages": [ToolMessage(prose(n), tool_call_id="x", id=f"m{n}")],
            "files": [f"file {n} {prose(n + 1000)}"],
        }

    def route(state: State) -> str:
        return "tool" if isinstance(state["messages"][-1], AIMessage) and state["messages"][-1].tool_calls else END

    builder: Any = StateGraph(State)
    builder.add_node("model", model)
    builder.add_node("tool", tool)
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", route, ["tool", END])
    builder.add_edge("tool", "model")
    return builder


def growing(*, delta: bool) -> Any:
    """Answers each question with a kilobyte, in a channel that is stored whole each time or as a delta channel."""

    class Whole(TypedDict):
        messages: Annotated[list[Any], add_messages]

    class Deltas(TypedDict):
        messages: Annotated[list[Any], DeltaChannel(append, list)]

    def answer(state: Any) -> Any:
        n = len(state["messages"])
        return {"messages": [AIMessage(prose(n), id=f"a{n}")]}

    builder: Any = StateGraph(Deltas if delta else Whole)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    return builder
