// The fakes are strict: each refuses a request with one wrong byte in any header or field that it checks. Without this
// a passing end-to-end test would say little about what the gateway sends.
import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';
import { LEAKING_HEADERS, play, startFakeOpenai } from '../lib/fake_openai.mjs';
import { startFakeApi } from '../lib/fake_openai_api.mjs';
import { sessionToken, startFakeHix } from '../lib/fake_hix.mjs';
import { CLIENT_KEY } from '../lib/gateway.mjs';

/** headers: {name: value | undefined}. */
function send(fake, { method = 'POST', path, headers, body }) {
    const given = Object.fromEntries(Object.entries(headers).filter(([, v]) => v !== undefined));
    return new Promise((done, fail) => {
        const req = http.request({ host: '127.0.0.1', port: fake.port, method, path, headers: given, setHost: false, agent: false }, async (res) => {
            const pieces = [];
            for await (const piece of res) pieces.push(piece);
            done({ status: res.statusCode, text: Buffer.concat(pieces).toString() });
        });
        req.on('error', fail);
        req.end(body);
    });
}

/** `value` with each byte in turn replaced by another printable one. */
function* oneByteOff(value) {
    for (let i = 0; i < value.length; i++) yield value.slice(0, i) + (value[i] === '~' ? '!' : '~') + value.slice(i + 1);
}

/** `param`: what the refusal has to be about. */
async function refuses(fake, request, what, param) {
    const before = fake.refusals.length;
    const answer = await send(fake, request);
    assert.ok(answer.status >= 400, `${what}: accepted with ${answer.status} ${answer.text.slice(0, 200)}`);
    assert.equal(fake.refusals.length, before + 1, `${what}: the refusal was not recorded`);
    if (param !== undefined) assert.match(fake.refusals.at(-1).param ?? '', param, `${what}: refused for another reason: ${fake.refusals.at(-1).message}`);
}

async function accepts(fake, request, what) {
    const before = fake.refusals.length;
    const answer = await send(fake, request);
    assert.equal(answer.status, 200, `${what}: ${answer.text}`);
    assert.equal(fake.refusals.length, before, what);
}

const TOOL = { type: 'function', function: { name: 'weather', description: 'd', parameters: { type: 'object' }, strict: null } };

// Everything the strict reader knows, once.
const CHAT = {
    model: 'm1',
    messages: [
        { role: 'system', content: 'be brief' },
        { role: 'user', content: [{ type: 'text', text: 'see' }, { type: 'image_url', image_url: { url: 'data:image/png;base64,iVBORw0KGgo=', detail: 'low' } }] },
        { role: 'assistant', content: null, tool_calls: [{ id: 'call_1', type: 'function', function: { name: 'weather', arguments: '{}' } }] },
        { role: 'tool', content: 'sunny', tool_call_id: 'call_1' },
        { role: 'user', content: 'and now?', name: 'ann' },
    ],
    max_completion_tokens: 5,
    max_tokens: 5,
    temperature: 1.5,
    top_p: 0.5,
    presence_penalty: -1,
    frequency_penalty: 1,
    n: 1,
    stop: ['a', 'b'],
    seed: -3,
    logprobs: true,
    top_logprobs: 3,
    logit_bias: { 50256: -100 },
    stream: true,
    stream_options: { include_usage: true },
    tools: [TOOL],
    tool_choice: 'auto',
    parallel_tool_calls: true,
    response_format: { type: 'json_object' },
    reasoning_effort: 'low',
    verbosity: 'high',
    modalities: ['text'],
    audio: { voice: 'v', format: 'wav' },
    service_tier: 'auto',
    store: false,
    metadata: { a: 'b' },
    user: 'u',
    safety_identifier: 's',
    prompt_cache_key: 'k',
};

/** CHAT with the value at `path` replaced. */
function withValue(path, value) {
    const body = structuredClone(CHAT);
    let at = body;
    for (const name of path.slice(0, -1)) at = at[name];
    at[path.at(-1)] = value;
    return body;
}

test('the fake OpenAI accepts what is right', async (t) => {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-1'] });
    const headers = { host: fake.host, authorization: 'Bearer sk-up-1', 'content-type': 'application/json' };
    await accepts(fake, { path: '/v1/chat/completions', headers, body: JSON.stringify(CHAT) }, 'every member');
    await accepts(fake, { path: '/v1/chat/completions', headers, body: '{"model":"m1","messages":[{"role":"user","content":"hi"}]}' }, 'the smallest request');
    await accepts(fake, { path: '/v1/chat/completions', headers, body: '{"model":"m1","messages":[{"role":"user","content":"hi"}],"user":null}' }, 'null is absent');
    await accepts(fake, { method: 'GET', path: '/v1/models', headers: { host: fake.host, authorization: 'Bearer sk-up-1' } }, 'models');
    assert.deepEqual(fake.requests[0].json, CHAT);
});

test('the fake OpenAI refuses one wrong byte in the head', async (t) => {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-1'], strict: false });
    const headers = { host: fake.host, authorization: 'Bearer sk-up-1', 'content-type': 'application/json' };
    const good = { path: '/v1/chat/completions', headers, body: JSON.stringify(CHAT) };
    await accepts(fake, good, 'the unchanged request');
    for (const name of Object.keys(headers)) {
        for (const value of oneByteOff(headers[name])) await refuses(fake, { ...good, headers: { ...headers, [name]: value } }, `${name}: ${value}`);
        if (name !== 'host') await refuses(fake, { ...good, headers: { ...headers, [name]: undefined } }, `no ${name}`);
    }
    for (const path of oneByteOff(good.path)) if (path[0] === '/') await refuses(fake, { ...good, path }, path);
    await refuses(fake, { ...good, path: '/v1/chat/completions?' }, 'an empty query');
    await refuses(fake, { ...good, path: '//v1/chat/completions' }, 'a doubled slash');
    await refuses(fake, { ...good, method: 'PUT' }, 'PUT');
    for (const name of LEAKING_HEADERS) {
        const value = name === 'expect' ? '100-continue' : 'x';
        await refuses(fake, { ...good, headers: { ...headers, [name]: value } }, `header ${name}`);
    }
    await refuses(fake, { ...good, headers: { ...headers, connection: 'close, x-secret' } }, 'Connection with another name');
    await refuses(fake, { ...good, headers: { ...headers, 'x-other': `a ${CLIENT_KEY}` } }, "the client's key in any header");
    await refuses(fake, { ...good, body: JSON.stringify({ ...CHAT, user: CLIENT_KEY }) }, "the client's key in the body");
});

test('the fake OpenAI refuses one wrong member', async (t) => {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-1'], strict: false });
    const headers = { host: fake.host, authorization: 'Bearer sk-up-1', 'content-type': 'application/json' };
    const refusesBody = (body, what, param) =>
        refuses(fake, { path: '/v1/chat/completions', headers, body: typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body) }, what, param);
    await accepts(fake, { path: '/v1/chat/completions', headers, body: JSON.stringify(CHAT) }, 'the unchanged request');

    for (const name of Object.keys(CHAT)) {
        const { [name]: value, ...rest } = CHAT;
        await refusesBody({ ...rest, [`${name}_`]: value }, `${name} misspelt`, new RegExp(`^${name}_?$`));
        for (const wrong of [-7.5, 'wrong', [], [{}], { wrong: true }, true]) {
            const alsoRight =
                (typeof wrong === 'string' && ['model', 'user', 'safety_identifier', 'prompt_cache_key', 'stop'].includes(name)) ||
                (wrong.wrong === true && ['logit_bias', 'metadata'].includes(name)) ||
                (wrong === true && typeof value === 'boolean');
            if (!alsoRight) await refusesBody({ ...CHAT, [name]: wrong }, `${name}: ${JSON.stringify(wrong)}`, new RegExp(`^${name}`));
        }
    }
    for (const [path, value] of [
        [['temperature'], 2.1],
        [['top_p'], -0.1],
        [['presence_penalty'], -2.5],
        [['frequency_penalty'], 2.5],
        [['n'], 0],
        [['max_tokens'], 0],
        [['top_logprobs'], 21],
        [['logprobs'], false],
        [['stream'], false],
        [['stop'], ['a', 'b', 'c', 'd', 'e']],
        [['stream_options', 'include_usag'], true],
        [['stream_options', 'include_usage'], 1],
        [['messages', 0, 'role'], 'systen'],
        [['messages', 0, 'content'], null],
        [['messages', 0, 'contents'], 'x'],
        [['messages', 1, 'content', 0, 'type'], 'texts'],
        [['messages', 1, 'content', 0, 'text'], 1],
        [['messages', 1, 'content', 1, 'image_url', 'url'], 'data:image/png;base64,iVBOR~0KGgo='],
        [['messages', 1, 'content', 1, 'image_url', 'detail'], 'lov'],
        [['messages', 2, 'tool_calls', 0, 'id'], 'call_2'],
        [['messages', 2, 'tool_calls', 0, 'id'], 'x'.repeat(41)],
        [['messages', 2, 'tool_calls', 0, 'type'], 'functiom'],
        [['messages', 2, 'tool_calls', 0, 'function', 'name'], 'we ther'],
        [['messages', 2, 'tool_calls', 0, 'function', 'arguments'], {}],
        [['messages', 2, 'reasoning_content'], 'hm'],
        [['messages', 3, 'tool_call_id'], 'call_2'],
        [['messages', 3, 'role'], 'user'],
        [['tools', 0, 'type'], 'functiom'],
        [['tools', 0, 'function', 'name'], 'we.ther'],
        [['tools', 0, 'function', 'strict'], 'no'],
        [['tool_choice'], 'autp'],
        [['response_format', 'type'], 'json_objecu'],
        [['reasoning_effort'], 'lov'],
        [['audio', 'voice'], 1],
    ])
        await refusesBody(withValue(path, value), `${path.join('.')} = ${JSON.stringify(value)}`, /./);
    await refusesBody({ ...CHAT, tools: undefined }, 'tool_choice without tools');
    await refusesBody(`${JSON.stringify(CHAT)}}`, 'a byte after the JSON');
    await refusesBody('[]', 'an array');
    await refusesBody(Buffer.from(JSON.stringify({ ...CHAT, user: 'é' }), 'latin1'), 'invalid UTF-8');
});

test('the fake OpenAI notes when the other side leaves', async (t) => {
    const fake = await startFakeOpenai(t);
    fake.always(play.hang());
    const req = http.request({ host: '127.0.0.1', port: fake.port, method: 'POST', path: '/v1/chat/completions', headers: { host: fake.host, authorization: 'Bearer sk-up-1', 'content-type': 'application/json' } });
    req.on('error', () => {});
    req.end(JSON.stringify({ model: 'm1', messages: [{ role: 'user', content: 'x' }] }));
    while (fake.requests.length === 0 || fake.last.json === null) await new Promise((done) => setTimeout(done, 5));
    assert.equal(fake.last.isGone, false);
    req.destroy();
    await fake.last.gone;
    assert.equal(fake.last.isGone, true);
});

const CHROME = 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36';

function hixHeaders(fake, more = {}) {
    return {
        host: `127.0.0.1:${fake.port}`,
        'content-type': 'application/json',
        accept: 'application/json',
        origin: 'https://hix.ai',
        referer: 'https://hix.ai/',
        cookie: `__Secure-next-auth.session-token=${fake.sessions[0]}`,
        'user-agent': CHROME,
        ...more,
    };
}

const CREATE = { path: '/api/trpc/hixChat.createChat?batch=1', body: '{"0":{"json":{"title":"Untitled","botId":85427}}}' };

async function createHixChat(fake) {
    const answer = await send(fake, { ...CREATE, headers: hixHeaders(fake) });
    assert.equal(answer.status, 200, answer.text);
    return JSON.parse(answer.text)[0].result.data.json.id;
}

test('the fake hix accepts what is right, in both framings', async (t) => {
    for (const framing of ['data', 'events']) {
        const fake = await startFakeHix(t, { framing });
        const id = await createHixChat(fake);
        const answer = await send(fake, {
            path: '/api/hix/chat',
            headers: hixHeaders(fake, { accept: 'text/event-stream', referer: `https://hix.ai/deepseek-v3?/id=${id}` }),
            body: JSON.stringify({ chatId: id, fileUrl: '', question: 'hi', search: true, searchType: 'news' }),
        });
        assert.equal(answer.status, 200);
        assert.match(answer.text, framing === 'data' ? /^data: \{"content":"Blue"\}\n\ndata: \[DONE\]\n\n$/ : /^id: 1716-0\ndata: /);
        const gone = await send(fake, { path: '/api/trpc/hixChat.deleteChat?batch=1', headers: hixHeaders(fake), body: JSON.stringify({ 0: { json: { id } } }) });
        assert.equal(gone.status, 200);
        assert.equal(fake.chats.size, 0);
    }
});

test('the fake hix refuses one wrong byte in the head', async (t) => {
    const fake = await startFakeHix(t, { strict: false });
    const headers = hixHeaders(fake);
    const good = { ...CREATE, headers };
    await accepts(fake, good, 'the unchanged request');
    for (const name of ['host', 'content-type', 'accept', 'origin', 'referer', 'cookie']) {
        for (const value of oneByteOff(headers[name])) await refuses(fake, { ...good, headers: { ...headers, [name]: value } }, `${name}: ${value}`);
        if (name !== 'host') await refuses(fake, { ...good, headers: { ...headers, [name]: undefined } }, `no ${name}`);
    }
    for (const agent of [undefined, 'curl/8.14', CHROME.replace('Chrome/', 'Chrone/'), CHROME.replace('537.36 (', '537.37 (')])
        await refuses(fake, { ...good, headers: { ...headers, 'user-agent': agent } }, `user agent ${agent}`);
    for (const path of oneByteOff(good.path)) if (path[0] === '/') await refuses(fake, { ...good, path }, path);
    await refuses(fake, { ...good, method: 'PUT' }, 'PUT');
    await refuses(fake, { ...good, headers: { ...headers, authorization: `Bearer ${CLIENT_KEY}` } }, 'an Authorization header');
    const wrong = await send(fake, { ...good, headers: { ...headers, cookie: `__Secure-next-auth.session-token=${sessionToken('nobody')}` } });
    assert.equal(wrong.status, 401);
    assert.equal(JSON.parse(wrong.text)[0].error.json.code, -32001);
});

test('the fake hix refuses one wrong byte in the body', async (t) => {
    const fake = await startFakeHix(t, { strict: false });
    const create = (body) => ({ ...CREATE, headers: hixHeaders(fake), body });
    for (const body of [
        '{"1":{"json":{"title":"Untitled","botId":85427}}}',
        '{"0":{"jsom":{"title":"Untitled","botId":85427}}}',
        '{"0":{"json":{"titel":"Untitled","botId":85427}}}',
        '{"0":{"json":{"title":7,"botId":85427}}}',
        '{"0":{"json":{"title":"Untitled","botId":85400}}}',
        '{"0":{"json":{"title":"Untitled","botId":"85427"}}}',
        '{"0":{"json":{"title":"Untitled","botId":85427,"x":1}}}',
        '{"0":{"json":{"title":"Untitled","botId":85427}}',
    ])
        await refuses(fake, create(body), body);

    const id = await createHixChat(fake);
    const body = { chatId: id, fileUrl: '', question: 'hi' };
    const ask = (change, headers = {}) => ({
        path: '/api/hix/chat',
        headers: hixHeaders(fake, { accept: 'text/event-stream', referer: `https://hix.ai/deepseek-v3?/id=${id}`, ...headers }),
        body: JSON.stringify({ ...body, ...change }),
    });
    await accepts(fake, ask({}), 'the unchanged question');
    for (const change of [
        { chatId: `${id.slice(0, -1)}~` },
        { chatId: undefined },
        { fileUrl: null },
        { fileUrl: undefined },
        { question: '' },
        { question: ['hi'] },
        { question: 'x'.repeat(8001) },
        { questions: 'hi' },
        { search: true },
        { searchType: 'news' },
        { search: true, searchType: 'newz' },
        { search: 1, searchType: 'news' },
    ])
        await refuses(fake, ask(change), JSON.stringify(change).slice(0, 80));
    await refuses(fake, ask({}, { accept: 'application/json' }), 'accept of another call');
    await refuses(fake, ask({}, { referer: `https://hix.ai/deepseek-r1?/id=${id}` }), 'a referer with another model');
    await refuses(fake, ask({}, { referer: 'https://hix.ai/' }), 'the referer of another call');
    await refuses(fake, ask({}, { cookie: `__Secure-next-auth.session-token=${fake.sessions[1]}` }), "another account's chat");
});

test('the fake of OpenAI’s other routes accepts what is right and refuses one wrong part', async (t) => {
    const fake = await startFakeApi(t, { strict: false });
    const headers = { host: 'x', authorization: 'Bearer sk-up-1', 'content-type': 'application/json' };
    const json = (path, body, more = {}) => ({ path: `/v1${path}`, headers: { ...headers, ...more }, body: JSON.stringify(body) });
    const form = (path, body, type = 'multipart/form-data; boundary=b1') => ({ path: `/v1${path}`, headers: { ...headers, 'content-type': type }, body });
    const field = (name, data, file) => `--b1\r\nContent-Disposition: form-data; name="${name}"${file ? `; filename="${file}"` : ''}\r\n\r\n${data}\r\n`;
    const heard = field('model', 'm') + field('file', 'x', 'a.mp3') + '--b1--\r\n';
    await accepts(fake, json('/embeddings', { model: 'm', input: 'x' }), 'embeddings');
    await accepts(fake, json('/completions', { model: 'm', prompt: 'x' }), 'completions');
    await accepts(fake, json('/moderations', { input: 'x' }), 'moderations');
    await accepts(fake, json('/audio/speech', { model: 'm', input: 'x', voice: 'v' }), 'speech');
    await accepts(fake, json('/images/generations', { model: 'm', prompt: 'x' }), 'images');
    await accepts(fake, form('/audio/transcriptions', heard), 'transcriptions');
    for (const [what, request] of Object.entries({
        'no model': json('/embeddings', { input: 'x' }),
        'an unknown member': json('/embeddings', { model: 'm', input: 'x', x: 1 }),
        'an empty input': json('/embeddings', { model: 'm', input: '' }),
        'a wrong format': json('/audio/speech', { model: 'm', input: 'x', voice: 'v', response_format: 'exe' }),
        'a header of the client’s': json('/embeddings', { model: 'm', input: 'x' }, { cookie: 'a=b' }),
        'a header of nobody’s': json('/embeddings', { model: 'm', input: 'x' }, { 'x-odd': '1' }),
        'the client’s key': json('/embeddings', { model: 'm', input: 'x' }, { 'openai-beta': CLIENT_KEY }),
        'another key': json('/embeddings', { model: 'm', input: 'x' }, { authorization: 'Bearer sk-up-9' }),
        'a query': json('/embeddings?a=b', { model: 'm', input: 'x' }),
        'another path': json('/embedding', { model: 'm', input: 'x' }),
        'a field twice': form('/audio/transcriptions', field('model', 'm') + heard),
        'no file': form('/audio/transcriptions', field('model', 'm') + '--b1--\r\n'),
        'a form without its end': form('/audio/transcriptions', heard.slice(0, -6)),
        'another boundary': form('/audio/transcriptions', heard, 'multipart/form-data; boundary=b2'),
        'line feeds alone': form('/audio/transcriptions', heard.replaceAll('\r\n', '\n')),
    }))
        await refuses(fake, request, what);
});
