"""OpenAI's own client against `bellrope serve --api-port`.

Usage: openai_client.py BASE_URL

The server answers every chat with the script of the test that starts this program. Prints "all well" in the end.
"""

import asyncio
import sys

import openai

MESSAGES = [{"role": "user", "content": "Who is there?"}]
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]


def check_whole(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="embedded/any", messages=MESSAGES, tools=TOOLS)
    message = answer.choices[0].message
    assert message.content == "Ding dong", message
    assert message.reasoning_content == "They knock", message
    assert message.tool_calls[0].id == "c1", message
    assert message.tool_calls[0].function.arguments == '{"at":1}', message
    assert answer.choices[0].finish_reason == "tool_calls", answer
    assert answer.usage.total_tokens == 7, answer
    assert answer.usage.prompt_tokens_details.cached_tokens == 2, answer
    assert answer.model == "embedded/any", answer


def check_stream(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="default", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == "Ding dong", deltas
    calls = [call for delta in deltas for call in delta.tool_calls or []]
    assert [call.index for call in calls] == [0, 0], calls
    assert "".join(call.function.arguments or "" for call in calls) == '{"at":1}', calls
    assert chunks[-1].usage.completion_tokens == 4, chunks[-1]
    assert chunks[-2].choices[0].finish_reason == "tool_calls", chunks[-2]
    # The helper that puts a stream together takes it, too.
    with client.chat.completions.stream(model="default", messages=MESSAGES) as stream:
        whole = stream.get_final_completion()
    assert whole.choices[0].message.content == "Ding dong", whole
    assert whole.choices[0].message.tool_calls[0].function.name == "look", whole


async def check_async(base_url: str) -> None:
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none") as client:
        asking = [client.chat.completions.create(model="default", messages=MESSAGES) for _ in range(20)]
        for answer in await asyncio.gather(*asking):
            assert answer.choices[0].message.content == "Ding dong", answer


def check_errors(client: openai.OpenAI) -> None:
    for kind, arguments in [
        (openai.BadRequestError, {"messages": []}),
        (openai.BadRequestError, {"messages": MESSAGES, "n": 2}),
        (openai.BadRequestError, {"messages": [{"role": "nobody", "content": "Who is there?"}]}),
        (openai.InternalServerError, {"model": "openai", "messages": MESSAGES}),
    ]:
        try:
            client.chat.completions.create(**{"model": "default", **arguments})
        except kind as error:
            assert error.body["message"], error
        else:
            raise AssertionError(f"{arguments} were taken")


def main() -> None:
    base_url = sys.argv[1]
    client = openai.OpenAI(base_url=base_url, api_key="none", timeout=30)
    assert "embedded/embedded" in [model.id for model in client.models.list()]
    check_whole(client)
    check_stream(client)
    check_errors(client)
    asyncio.run(check_async(base_url))
    print("all well")


main()
