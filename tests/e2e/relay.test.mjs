// The relay lane: what the client wrote is what the upstream reads, but for the edits that are promised, and back.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { chat, CLIENT_KEY, request, scenario, startGateway } from '../lib/gateway.mjs';
import { connect, parseForeignSse, rawChat, readChatStream } from '../lib/raw.mjs';
import { completion, play, providerFor, startFakeOpenai, USAGE } from '../lib/fake_openai.mjs';

async function pair(t, { fake: fakeOptions, provider, config } = {}) {
    const fake = await startFakeOpenai(t, fakeOptions);
    const gw = await startGateway(t, { config: { 'provider up': providerFor(fake, provider), ...config } });
    return { fake, gw };
}

const sdkFor = (gw) => new OpenAI({ baseURL: gw.base, apiKey: CLIENT_KEY, maxRetries: 0 });

// Spacing, order, number spelling and escapes that a parser would not give back; members nobody knows.
const ODD = String.raw`{ "zeta" : {"b":1.0,"a":[1e3, -0, 0.70, 12345678901234567890]},
	"temperature":1.00e0,"messages":[{"role":"user","content":"caf\u00e9 \/ \ud83c\udf0d é"} ] , "model":"m1",
  "x_unknown":null ,"seed":9007199254740993}  `;

scenario('a request that is not edited arrives byte for byte', async (t) => {
    const { fake, gw } = await pair(t, { fake: { allow: ['zeta', 'x_unknown'] } });
    const answer = await request(gw, { body: ODD });
    assert.equal(answer.status, 200, answer.text);
    assert.equal(fake.last.body.toString(), ODD);
});

scenario('a mapped model name is the only edit', async (t) => {
    const { fake, gw } = await pair(t, { fake: { allow: ['zeta', 'x_unknown'] }, provider: { models: ['m1', 'ours=vendor/theirs-4'] } });
    for (const [name, sent] of [
        ['ours', 'vendor/theirs-4'],
        ['up/ours', 'vendor/theirs-4'],
        ['up/m1', 'm1'],
        ['o\\u0075rs', 'vendor/theirs-4'],
    ]) {
        const answer = await request(gw, { body: ODD.replace('"m1"', `"${name}"`) });
        assert.equal(answer.status, 200, answer.text);
        assert.equal(fake.last.body.toString(), ODD.replace('"m1"', `"${sent}"`), name);
    }
});

scenario('a stream is asked for its usage, and nothing else changes', async (t) => {
    const { fake, gw } = await pair(t, { fake: { allow: ['zeta', 'x_unknown'] } });
    const original = ODD.replace('"x_unknown":null', '"stream": true,"x_unknown":null');
    const answer = await request(gw, { body: original });
    assert.equal(answer.status, 200, answer.text);
    const sent = fake.last.body.toString();
    assert.equal(fake.last.json.stream_options.include_usage, true);
    const without = sent.replace(/,?\s*"stream_options"\s*:\s*\{\s*"include_usage"\s*:\s*true\s*\}/, '');
    assert.ok(without === original || sent.replace(/"stream_options"\s*:\s*\{\s*"include_usage"\s*:\s*true\s*\}\s*,/, '') === original, sent);

    for (const [options, want] of [
        ['{"include_usage":true , "include_obfuscation":false}', '{"include_usage":true , "include_obfuscation":false}'],
        ['{"include_obfuscation":false,"include_usage":false}', '{"include_obfuscation":false,"include_usage":true}'],
        ['{"include_obfuscation":false}', null],
        ['{}', null],
        ['null', null],
    ]) {
        const body = `{"model":"m1","stream":true,"stream_options":${options},"messages":[{"role":"user","content":"x"}]}`;
        assert.equal((await request(gw, { body })).status, 200, options);
        assert.equal(fake.last.json.stream_options.include_usage, true, options);
        if (options.includes('obfuscation')) assert.equal(fake.last.json.stream_options.include_obfuscation, false, options);
        if (want !== null) assert.ok(fake.last.body.toString().includes(`"stream_options":${want}`), fake.last.body.toString());
    }
    assert.equal((await request(gw, { body: chat('m1') })).status, 200);
    assert.ok(!('stream_options' in fake.last.json), 'an answer that is not streamed is not asked');
});

scenario('an answer comes back byte for byte', async (t) => {
    const { fake, gw } = await pair(t);
    const body = `\n ${JSON.stringify({ ...completion('m1', 'odd ☃'), x_vendor: { z: 1, a: 2 } }, null, 3).replace('1790000000', '1.79e9')} \n`;
    fake.always(play.status(200, body, { 'content-type': 'application/json; charset=utf-8', 'x-vendor-secret': 'no', 'set-cookie': 'a=b', server: 'fake/1' }));
    const answer = await request(gw, { body: chat('m1') });
    assert.equal(answer.text, body);
    assert.match(answer.headers['content-type'], /^application\/json/);
    assert.equal(answer.headers['set-cookie'], undefined, 'an upstream’s cookie is not the client’s');
});

scenario('a stream comes back event for event', async (t) => {
    const { fake, gw } = await pair(t);
    const events = [
        '{"id":"a","object":"chat.completion.chunk","created":1.0,"model":"m1","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null,"obfuscation":"xyz"}',
        '{"id":"a", "choices":[{"delta":{"content":"caf\\u00e9"},"index":0,"finish_reason":null}],"model":"m1","created":1.0,"object":"chat.completion.chunk","usage":null}',
        '{"id":"a","object":"chat.completion.chunk","created":1.0,"model":"m1","choices":[{"index":0,"delta":{"x_new":{"z":0.10}},"finish_reason":null}],"usage":null}',
        '{"id":"a","object":"chat.completion.chunk","created":1.0,"model":"m1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}',
        `{"id":"a","object":"chat.completion.chunk","created":1.0,"model":"m1","choices":[],"usage":${JSON.stringify(USAGE)}}`,
    ];
    const wire = [...events, '[DONE]'].map((e) => `data: ${e}\n\n`).join('');
    for (const size of [Infinity, 7, 1]) {
        fake.always(play.bytes(wire, { size, gapMs: 0 }));
        const answer = await request(gw, { body: chat('m1', 'x', { stream: true, stream_options: { include_usage: true } }) });
        assert.equal(answer.text, wire, `pieces of ${size}`);
    }
});

scenario('usage reaches only the client that asked', async (t) => {
    const { fake, gw } = await pair(t);
    const quiet = readChatStream((await request(gw, { body: chat('m1', 'x', { stream: true }) })).bytes);
    assert.ok(quiet.done);
    assert.ok(quiet.chunks.every((chunk) => chunk.choices.length > 0 && !chunk.usage), 'usage came unasked');
    assert.equal(quiet.text, 'Hello from upstream.');
    for (const options of [{ include_usage: false }, {}, null]) {
        const { chunks } = readChatStream((await request(gw, { body: chat('m1', 'x', { stream: true, stream_options: options }) })).bytes);
        assert.ok(chunks.every((chunk) => chunk.choices.length > 0 && !chunk.usage), JSON.stringify(options));
    }
    const asked = readChatStream((await request(gw, { body: chat('m1', 'x', { stream: true, stream_options: { include_usage: true } }) })).bytes);
    assert.deepEqual(asked.chunks.at(-1).choices, []);
    assert.deepEqual(asked.chunks.at(-1).usage, USAGE);
    assert.equal(fake.requests.length, 5);
});

scenario('nothing of the client’s leaks upstream, and its harmless headers do no harm', async (t) => {
    const { fake, gw } = await pair(t);
    const answer = await request(gw, {
        path: `/v1/chat/completions?key=${CLIENT_KEY}`,
        body: chat('m1'),
        headers: {
            cookie: 'session=secret',
            'x-forwarded-for': '1.2.3.4',
            'x-forwarded-host': 'h',
            forwarded: 'for=1.2.3.4',
            'x-real-ip': '1.2.3.4',
            'proxy-authorization': 'Basic eA==',
            te: 'trailers',
            via: '1.1 nowhere',
            connection: 'keep-alive, x-drop-me',
            'x-drop-me': 'hop',
            'x-api-key': CLIENT_KEY,
            'x-chatmux-target': 'up',
            'user-agent': 'OpenAI/JS 6.49.0',
            'x-stainless-retry-count': '0',
            'accept-encoding': 'gzip, deflate',
        },
    });
    assert.equal(answer.status, 200, answer.text);
    assert.equal(fake.last.headers['x-drop-me'], undefined);
    assert.equal(fake.last.headers.authorization, `Bearer ${fake.last.key}`);
    assert.equal(answer.json.choices[0].message.content, 'Hello from upstream.');
});

scenario('header.X and user_agent of the provider go upstream', async (t) => {
    const { fake, gw } = await pair(t, { provider: { 'header.X-Team': 'blue', 'header.OpenAI-Organization': 'org_1', user_agent: 'tester/1' } });
    assert.equal((await request(gw, { body: chat('m1') })).status, 200);
    assert.equal(fake.last.headers['x-team'], 'blue');
    assert.equal(fake.last.headers['openai-organization'], 'org_1');
    assert.equal(fake.last.headers['user-agent'], 'tester/1');
});

scenario('rate limit headers of the upstream reach the client', async (t) => {
    const { fake, gw } = await pair(t);
    const limits = {
        'x-ratelimit-limit-requests': '60',
        'x-ratelimit-remaining-requests': '59',
        'x-ratelimit-reset-requests': '1s',
        'x-ratelimit-limit-tokens': '150000',
        'x-ratelimit-remaining-tokens': '149984',
        'x-ratelimit-reset-tokens': '6m0s',
    };
    fake.always(play.ok({ headers: limits }));
    for (const stream of [false, true]) {
        const { headers } = await request(gw, { body: chat('m1', 'x', { stream }) });
        for (const [name, value] of Object.entries(limits)) assert.equal(headers[name], value, `${name}, stream: ${stream}`);
    }
});

scenario('a header value of the upstream cannot split the answer or the log', async (t) => {
    const { fake, gw } = await pair(t);
    fake.always((rec) => {
        const body = JSON.stringify(completion('m1', 'ok'));
        rec.res.socket.end(
            `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-RateLimit-Reset-Requests: 1s\rX-Evil: 1\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
        );
    });
    const answer = await request(gw, { body: chat('m1') });
    assert.equal(answer.headers['x-evil'], undefined);
    assert.ok(!gw.output.split('\n').some((line) => line.startsWith('X-Evil')));
});

scenario('a name served with "*" and one that nobody serves', async (t) => {
    const { fake, gw } = await pair(t, { provider: { models: ['*'] } });
    assert.equal((await request(gw, { body: chat('anything/at-all:free') })).status, 200);
    assert.equal(fake.last.json.model, 'anything/at-all:free');
    assert.equal((await request(gw, { body: chat('up/named') })).status, 200);
    assert.equal(fake.last.json.model, 'named');
});

scenario('[model name] routes by priority', async (t) => {
    const second = await startFakeOpenai(t, { keys: ['sk-second'] });
    const { fake, gw } = await pair(t, {
        config: {
            retry: { retries: 0 },
            'provider other': providerFor(second, { models: ['big'] }),
            'model best': { targets: ['up/m1', 'other/big'], strategy: 'priority' },
        },
    });
    const first = await request(gw, { body: chat('best') });
    assert.equal(first.status, 200, first.text);
    assert.equal(first.headers['x-chatmux-provider'], 'up');
    fake.always(play.error(503, 'down', { type: 'server_error' }));
    const next = await request(gw, { body: chat('best') });
    assert.equal(next.status, 200, next.text);
    assert.equal(next.headers['x-chatmux-provider'], 'other');
    assert.equal(second.last.json.model, 'big');
    assert.ok(Number(next.headers['x-chatmux-attempts']) > 1);
});

scenario('tool calls, images and every other member of a rich request', async (t) => {
    const { fake, gw } = await pair(t);
    const body = {
        model: 'm1',
        messages: [
            { role: 'developer', content: 'be brief' },
            { role: 'user', content: [{ type: 'text', text: 'see' }, { type: 'image_url', image_url: { url: 'data:image/png;base64,iVBORw0KGgo=' } }] },
            { role: 'assistant', content: null, refusal: null, annotations: [], tool_calls: [{ id: 'call_1', type: 'function', function: { name: 'f', arguments: '{"a":1}' } }] },
            { role: 'tool', tool_call_id: 'call_1', content: 'done' },
        ],
        tools: [{ type: 'function', function: { name: 'f', parameters: { type: 'object' }, strict: true } }],
        tool_choice: { type: 'function', function: { name: 'f' } },
        response_format: { type: 'json_schema', json_schema: { name: 's', schema: {} } },
        reasoning_effort: 'high',
        logprobs: true,
        top_logprobs: 2,
        n: 2,
        metadata: { a: 'b' },
    };
    const answer = await sdkFor(gw).chat.completions.create(body);
    assert.equal(answer.choices[0].message.content, 'Hello from upstream.');
    assert.deepEqual(fake.last.json, body);
});

scenario('1 MB in, 1 MB out, and no Expect', async (t) => {
    const { fake, gw } = await pair(t);
    const prompt = 'prompt é '.repeat(120_000);
    const text = 'answer 世界 '.repeat(70_000);
    fake.always(play.ok({ pieces: text.match(/[^]{1,5000}/gu) }));
    const plain = await sdkFor(gw).chat.completions.create({ model: 'm1', messages: [{ role: 'user', content: prompt }] });
    assert.equal(plain.choices[0].message.content, text);
    assert.equal(fake.last.json.messages[0].content, prompt);
    let streamed = '';
    for await (const chunk of await sdkFor(gw).chat.completions.create({ model: 'm1', messages: [{ role: 'user', content: prompt }], stream: true }))
        streamed += chunk.choices[0].delta.content ?? '';
    assert.equal(streamed, text);
});

scenario('unicode split across packets', async (t) => {
    const { fake, gw } = await pair(t);
    const text = 'é世🌍'.repeat(20);
    const w = (delta, finish = null) => `data: ${JSON.stringify({ id: 'a', object: 'chat.completion.chunk', created: 1, model: 'm1', choices: [{ index: 0, delta, finish_reason: finish }] })}\n\n`;
    fake.always(play.bytes(`${w({ role: 'assistant' })}${w({ content: text })}${w({}, 'stop')}data: [DONE]\n\n`, { size: 1 }));
    let streamed = '';
    for await (const chunk of await sdkFor(gw).chat.completions.create({ model: 'm1', messages: [{ role: 'user', content: 'x' }], stream: true }))
        streamed += chunk.choices[0].delta.content ?? '';
    assert.equal(streamed, text);
});

scenario('a gzip-coded answer is decoded or refused, never passed off as text', async (t) => {
    const { fake, gw } = await pair(t, { config: { retry: { retries: 0 } } });
    fake.always(play.gzip({ text: 'squeezed' }));
    const answer = await request(gw, { body: chat('m1') });
    if (answer.status === 200 && !answer.headers['content-encoding']) assert.equal(answer.json.choices[0].message.content, 'squeezed');
    else assert.equal(answer.status, 502, answer.text);
});

scenario('what compatible servers do to a stream', async (t) => {
    const { fake, gw } = await pair(t);
    const event = (delta, finish = null, more = {}) => JSON.stringify({ id: 'a', object: 'chat.completion.chunk', created: 1, model: 'm1', choices: [{ index: 0, delta, finish_reason: finish }], ...more });
    const say = [event({ role: 'assistant', content: '' }), event({ content: 'one ' }), event({ content: 'two' }), event({}, 'stop')];
    for (const [what, wire] of [
        ['CRLF', [...say, '[DONE]'].map((e) => `data: ${e}\r\n\r\n`).join('')],
        ['no space after data:', [...say, '[DONE]'].map((e) => `data:${e}\n\n`).join('')],
        ['comments and event lines', [...say, '[DONE]'].map((e) => `: keep-alive\n\nevent: message\nid: 7\ndata: ${e}\n\n`).join('')],
        ['no [DONE] but a finish_reason', say.map((e) => `data: ${e}\n\n`).join('')],
        ['several data: lines', `data: {"id":"a","object":"chat.completion.chunk","created":1,"model":"m1",\ndata: "choices":[{"index":0,"delta":{"content":"one two"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n`],
        ['usage on every chunk', [...say.map((e) => JSON.stringify({ ...JSON.parse(e), usage: USAGE })), '[DONE]'].map((e) => `data: ${e}\n\n`).join('')],
        ['bytes after [DONE]', `${[...say, '[DONE]'].map((e) => `data: ${e}\n\n`).join('')}: bye\n\n`],
    ]) {
        fake.always(play.bytes(wire));
        const raw = await connect(t, gw);
        raw.send(rawChat(chat('m1', 'x', { stream: true })));
        assert.equal((await raw.head()).status, 200, what);
        const { bytes, clean } = await raw.drainStream();
        assert.ok(clean, what);
        const got = readChatStream(bytes, parseForeignSse);
        assert.equal(got.text, 'one two', what);
        assert.equal(got.finish, 'stop', what);
        assert.ok(got.done, `${what}: no [DONE]`);
    }
});

scenario('many requests share a few upstream connections', async (t) => {
    const { fake, gw } = await pair(t);
    for (let i = 0; i < 30; i++) assert.equal((await request(gw, { body: chat('m1') })).status, 200);
    assert.ok(new Set(fake.requests.map((rec) => rec.socket)).size <= 3, 'a new connection for each request');
});

scenario('credentials take turns', async (t) => {
    const { fake, gw } = await pair(t);
    for (let i = 0; i < 9; i++) assert.equal((await request(gw, { body: chat('m1') })).status, 200);
    const counts = Map.groupBy(fake.requests, (rec) => rec.key);
    assert.deepEqual([...counts.values()].map((list) => list.length), [3, 3, 3]);
});
