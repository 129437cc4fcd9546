"""Anthropic's own client against `bellrope serve --api-port`.

Usage: anthropic_client.py BASE_URL MODEL

The provider behind it calls the tool `look`, and says "All is done." once it has the result; asked without tools it answers
with JSON. Prints "all well" in the end.
"""

import sys

import anthropic
import pydantic

TOOLS = [{"name": "look", "description": "Looks", "input_schema": {"type": "object", "properties": {}}}]
ASK = {"role": "user", "content": "Who is there?"}


class Bell(pydantic.BaseModel):
    name: str
    rings: int


def check_tools(client: anthropic.Anthropic, model: str) -> None:
    first = client.messages.create(model=model, max_tokens=500, messages=[ASK], tools=TOOLS)
    assert first.stop_reason == "tool_use", first
    call = next(block for block in first.content if block.type == "tool_use")
    assert (call.name, call.input) == ("look", {"at": 1}), call
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "a bell"}
    messages = [ASK, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    last = client.messages.create(model=model, max_tokens=500, messages=messages, tools=TOOLS)
    assert (last.content[0].text, last.stop_reason) == ("All is done.", "end_turn"), last
    assert (last.usage.input_tokens, last.usage.output_tokens) == (5, 7), last


def check_stream(client: anthropic.Anthropic, model: str) -> None:
    with client.messages.stream(model=model, max_tokens=500, messages=[ASK], tools=TOOLS) as stream:
        kinds = [event.type for event in stream]
        whole = stream.get_final_message()
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop", kinds
    call = next(block for block in whole.content if block.type == "tool_use")
    assert call.input == {"at": 1}, whole


def check_parse(client: anthropic.Anthropic, model: str) -> None:
    parsed = client.messages.parse(model=model, max_tokens=500, messages=[ASK], output_format=Bell)
    assert parsed.parsed_output == Bell(name="Ding", rings=2), parsed


def check_errors(client: anthropic.Anthropic, model: str) -> None:
    try:
        client.messages.create(model=model, max_tokens=500, messages=[])
    except anthropic.BadRequestError as error:
        assert error.body["error"]["message"], error
    else:
        raise AssertionError("a request without messages was taken")


def main() -> None:
    base_url, model = sys.argv[1:]
    client = anthropic.Anthropic(base_url=base_url, api_key="none", timeout=30)
    check_tools(client, model)
    check_stream(client, model)
    check_parse(client, model)
    check_errors(client, model)
    assert client.messages.count_tokens(model=model, messages=[ASK]).input_tokens > 0
    print("all well")


main()
