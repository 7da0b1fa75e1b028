"""The Python `openai` package against a running headkv-serve: chat, streams, completions, schemas, errors.

Usage: python scripts/openai-client.py http://127.0.0.1:1234/v1
"""

import json
import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
model = client.models.list().data[0].id
user = [{"role": "user", "content": "Who are you?"}]
greedy = {"model": model, "messages": user, "temperature": 0, "max_tokens": 16}

whole = client.chat.completions.create(**greedy)
text = whole.choices[0].message.content
assert text and whole.choices[0].finish_reason in ("stop", "length"), whole
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
assert whole.usage.model_extra["headkv"]["kv_bytes"] > 0

pieces, usage = "", None
for chunk in client.chat.completions.create(**greedy, stream=True, stream_options={"include_usage": True}):
    pieces += "".join(choice.delta.content or "" for choice in chunk.choices)
    usage = chunk.usage or usage
assert pieces == text, (pieces, text)
assert usage.completion_tokens == whole.usage.completion_tokens

probable = client.chat.completions.create(**greedy, logprobs=True, top_logprobs=2)
first = probable.choices[0].logprobs.content[0]
assert first.logprob <= 0 and first.top_logprobs[0].logprob == first.logprob, first

two = client.completions.create(model=model, prompt=["Once", "The river"], max_tokens=8, temperature=0)
assert len(two.choices) == 2
full = client.completions.create(
    model=model, prompt="word " * 600, max_tokens=4, temperature=0, extra_body={"headkv": {"method": "full"}}
)
kept = client.completions.create(model=model, prompt="word " * 600, max_tokens=4, temperature=0)
assert kept.usage.model_extra["headkv"]["kv_bytes"] < full.usage.model_extra["headkv"]["kv_bytes"]

schema = {
    "type": "object",
    "properties": {"yes": {"type": "boolean"}},
    "required": ["yes"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False},
}
shaped = client.chat.completions.create(
    **{**greedy, "max_tokens": 40},
    response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
)
assert isinstance(json.loads(shaped.choices[0].message.content)["yes"], bool)

call = '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'
tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
called = client.chat.completions.create(
    **{**greedy, "max_tokens": 120},
    tools=tools,
    # The embedded model calls nothing of its own accord.
    extra_body={"grammar": {"type": "regex", "value": call.replace("{", r"\{").replace("}", r"\}")}},
)
assert called.choices[0].finish_reason == "tool_calls", called
assert called.choices[0].message.tool_calls[0].function.name == "weather"

for changed, error in [
    ({"model": "other"}, openai.NotFoundError),
    ({"temperature": 9}, openai.BadRequestError),
    ({"max_tokens": -1}, openai.BadRequestError),
    ({"max_tokens": 10**6}, openai.BadRequestError),
]:
    try:
        client.chat.completions.create(**{**greedy, **changed})
    except error as raised:
        assert raised.code and raised.param, raised
    else:
        raise AssertionError(f"{changed} was answered")
print(f"openai {openai.__version__}: all as expected")
