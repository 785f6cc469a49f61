// What a client that does something wrong is told: status, type, param and code in OpenAI's shape, before any upstream
// is asked.
import assert from 'node:assert/strict';
import { gzipSync } from 'node:zlib';
import OpenAI from 'openai';
import { chat, CLIENT_KEY, request, scenario, startGateway } from '../lib/gateway.mjs';
import { connect, rawChat, rawRequest } from '../lib/raw.mjs';
import { providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';

const DEMO = { config: { 'provider demo': { type: 'demo' } } };

async function withRelay(t) {
    const fake = await startFakeOpenai(t);
    const gw = await startGateway(t, { config: { 'provider demo': { type: 'demo' }, 'provider up': providerFor(fake) } });
    return { fake, gw };
}

function isInvalid(answer, status, { code, param } = {}) {
    assert.equal(answer.status, status, answer.text);
    assert.match(answer.headers['content-type'], /^application\/json/);
    assert.ok(answer.headers['x-request-id'], 'x-request-id');
    const { error } = answer;
    assert.equal(error.type, 'invalid_request_error', answer.text);
    assert.ok(error.message.length > 5);
    if (code !== undefined) assert.equal(error.code, code, answer.text);
    if (param !== undefined) assert.equal(error.param, param, answer.text);
    return error;
}

scenario('wrong key, no key', async (t) => {
    const gw = await startGateway(t, DEMO);
    isInvalid(await request(gw, { body: chat('demo'), key: 'sk-wrong' }), 401, { code: 'invalid_api_key' });
    isInvalid(await request(gw, { body: chat('demo'), key: null }), 401, { code: 'invalid_api_key' });
    isInvalid(await request(gw, { path: '/v1/models', key: null }), 401, { code: 'invalid_api_key' });
    const sdk = new OpenAI({ baseURL: gw.base, apiKey: 'sk-wrong' });
    await assert.rejects(sdk.models.list(), (error) => error instanceof OpenAI.AuthenticationError && error.code === 'invalid_api_key');
    assert.ok(!gw.output.includes('sk-wrong'), 'a wrong key is somebody’s secret, too');
});

scenario('unknown model', async (t) => {
    const gw = await startGateway(t, DEMO);
    for (const model of ['nonesuch', 'demo/nonesuch', 'nonesuch/demo', ''])
        for (const stream of [false, true]) {
            const answer = await request(gw, { body: chat(model, 'x', { stream }) });
            isInvalid(answer, model === '' && answer.status === 400 ? 400 : 404, { param: 'model', ...(answer.status === 404 && { code: 'model_not_found' }) });
        }
});

scenario('broken JSON, with the position', async (t) => {
    const { fake, gw } = await withRelay(t);
    for (const body of [
        '{"model":"m1","messages":[{"role":"user","content":"x"}]',
        '{"model":"m1",,"messages":[]}',
        '{"model":"m1" "messages":[]}',
        "{'model':'m1'}",
        '{"model":"m1","messages":[{"role":"user","content":"a\nb"}]}',
        '{"model":"m1","messages":[{"role":"user","content":"\\x41"}]}',
        '{"model":"m1","messages":[{"role":"user","content":"x"}],"n":01}',
        `${JSON.stringify(chat('m1'))}x`,
        '',
        ' ',
    ]) {
        const error = isInvalid(await request(gw, { body }), 400);
        if (body.trim() !== '') assert.match(error.message, /\d/, `no position in: ${error.message}`);
    }
    const error = isInvalid(await request(gw, { body: '{"model":"m1",\n  "messages": [ oops ]}' }), 400);
    assert.match(error.message, /\b(2\b.*\b1[67]|2[89]|3[0-2])\b/, `where is it? ${error.message}`);
    assert.equal(fake.requests.length, 0);
});

scenario('bytes that are no UTF-8, lone surrogates, NUL', async (t) => {
    const { fake, gw } = await withRelay(t);
    isInvalid(await request(gw, { body: Buffer.from('{"model":"m1","messages":[{"role":"user","content":"\xff\xfe"}]}', 'latin1') }), 400);
    isInvalid(await request(gw, { body: Buffer.concat([Buffer.from(JSON.stringify(chat('m1'))), Buffer.from([0])]) }), 400);
    assert.equal(fake.requests.length, 0);
    const lone = await request(gw, { body: '{"model":"demo","messages":[{"role":"user","content":"a\\ud800b"}]}' });
    if (lone.status === 200) assert.equal(lone.json.choices[0].message.content, 'a\ufffdb');
    else isInvalid(lone, 400);
});

scenario('nesting without end', async (t) => {
    const { fake, gw } = await withRelay(t);
    const depth = 100_000;
    isInvalid(await request(gw, { body: `{"model":"m1","messages":[{"role":"user","content":"x"}],"metadata":${'['.repeat(depth)}${']'.repeat(depth)}}` }), 400);
    isInvalid(await request(gw, { body: '['.repeat(depth) }), 400);
    assert.equal(fake.requests.length, 0);
});

scenario('a flood of values is refused before memory is taken', async (t) => {
    const { gw } = await withRelay(t);
    const before = gw.rssBytes();
    const answer = await request(gw, { body: `{"model":"m1","messages":[{"role":"user","content":"x"}],"metadata":[0${',0'.repeat(15_000_000)}]}` });
    isInvalid(answer, 400);
    assert.ok(gw.rssBytes() - before < 150 * 2 ** 20, `resident memory grew by ${gw.rssBytes() - before} bytes`);
});

scenario('wrong types, with the field in param', async (t) => {
    const { fake, gw } = await withRelay(t);
    for (const [body, param] of [
        [[], null],
        ['"text"', null],
        [{ messages: [{ role: 'user', content: 'x' }] }, 'model'],
        [{ model: 7, messages: [{ role: 'user', content: 'x' }] }, 'model'],
        [{ model: null, messages: [{ role: 'user', content: 'x' }] }, 'model'],
        [{ model: 'demo' }, 'messages'],
        [{ model: 'demo', messages: null }, 'messages'],
        [{ model: 'demo', messages: 'hello' }, 'messages'],
        [{ model: 'demo', messages: {} }, 'messages'],
        [{ model: 'demo', messages: [] }, 'messages'],
        [{ model: 'demo', messages: ['hello'] }, 'messages[0]'],
        [{ model: 'demo', messages: [{ content: 'x' }] }, 'messages[0].role'],
        [{ model: 'demo', messages: [{ role: 'wizard', content: 'x' }] }, 'messages[0].role'],
        [{ model: 'demo', messages: [{ role: 'user', content: 'x' }, { role: 'user', content: 7 }] }, 'messages[1].content'],
        [{ model: 'demo', messages: [{ role: 'user' }] }, 'messages[0].content'],
        [{ model: 'demo', messages: [{ role: 'user', content: [{ type: 'text', text: 7 }] }] }, 'messages[0].content[0].text'],
        [{ model: 'demo', messages: [{ role: 'user', content: [7] }] }, 'messages[0].content[0]'],
        [chat('demo', 'x', { stream: 'yes' }), 'stream'],
        [chat('demo', 'x', { stream: true, stream_options: 'all' }), 'stream_options'],
        [chat('demo', 'x', { stream: true, stream_options: { include_usage: 1 } }), 'stream_options.include_usage'],
        [chat('demo', 'x', { temperature: 'hot' }), 'temperature'],
        [chat('demo', 'x', { max_tokens: 1.5 }), 'max_tokens'],
        [chat('demo', 'x', { tools: {} }), 'tools'],
        [chat('demo', 'x', { tools: [{ type: 'function' }] }), 'tools[0].function'],
        [chat('demo', 'x', { tools: [{ type: 'function', function: { name: 7 } }] }), 'tools[0].function.name'],
        [chat('demo', 'x', { stop: 7 }), 'stop'],
    ])
        isInvalid(await request(gw, { body: typeof body === 'string' ? body : JSON.stringify(body) }), 400, param === null ? {} : { param });
    for (const [body, param] of [
        [{ model: 'm1', messages: 'hello' }, 'messages'],
        [{ model: 'm1', messages: [] }, 'messages'],
        [chat('m1', 'x', { stream: 'yes' }), 'stream'],
    ])
        isInvalid(await request(gw, { body }), 400, { param });
    assert.equal(fake.requests.length, 0, 'an upstream was asked');
});

scenario('null is absent', async (t) => {
    const gw = await startGateway(t, DEMO);
    const answer = await request(gw, { body: chat('demo', 'still fine', { stream: null, temperature: null, tools: null, stop: null, max_tokens: null, stream_options: null }) });
    assert.equal(answer.status, 200, answer.text);
    assert.equal(answer.json.choices[0].message.content, 'still fine');
});

scenario('a doubled top-level member that we read', async (t) => {
    const { fake, gw } = await withRelay(t);
    for (const [body, param] of [
        ['{"model":"m1","messages":[{"role":"user","content":"x"}],"model":"secret"}', 'model'],
        ['{"model":"m1","messages":[{"role":"user","content":"x"}],"mod\\u0065l":"secret"}', 'model'],
        ['{"model":"m1","messages":[{"role":"user","content":"x"}],"messages":[{"role":"user","content":"y"}]}', 'messages'],
        ['{"model":"m1","stream":false,"messages":[{"role":"user","content":"x"}],"stream":true}', 'stream'],
        ['{"model":"demo","stream":false,"messages":[{"role":"user","content":"x"}],"stream":true}', 'stream'],
    ])
        isInvalid(await request(gw, { body }), 400, { param });
    assert.equal(fake.requests.length, 0);
});

scenario('unknown path, wrong method', async (t) => {
    const gw = await startGateway(t, DEMO);
    for (const path of ['/v1/nothing', '/nothing', '/v2/chat/completions', '/v1/chat/completions/more', '/v1/chat', '/v1/models/demo/more/', '/admin'])
        isInvalid(await request(gw, { path }), 404);
    for (const [method, path, allow] of [
        ['GET', '/v1/chat/completions', /POST/],
        ['PUT', '/v1/chat/completions', /POST/],
        ['DELETE', '/chat/completions', /POST/],
        ['POST', '/v1/models', /GET/],
        ['POST', '/healthz', /GET/],
        ['PATCH', '/v1/models/demo', /GET/],
    ]) {
        const answer = await request(gw, { method, path, ...(method !== 'GET' && { body: '{}' }) });
        isInvalid(answer, 405);
        assert.match(answer.headers.allow, allow, `${method} ${path}`);
    }
});

scenario('x-request-id: always there, echoed when sane', async (t) => {
    const gw = await startGateway(t, DEMO);
    const ids = new Set();
    for (const options of [{ body: chat('demo') }, { body: '{' }, { path: '/nothing' }, { path: '/v1/models', key: null }, { path: '/healthz' }, { path: '/' }])
        ids.add((await request(gw, options)).headers['x-request-id']);
    assert.ok(!ids.has(undefined));
    assert.equal(ids.size, 6, 'ids repeat');
    for (const id of ['abc-123', 'x'.repeat(128), 'A/B:c.d_e~f']) assert.equal((await request(gw, { path: '/healthz', headers: { 'x-request-id': id } })).headers['x-request-id'], id);
    for (const id of ['x'.repeat(129), 'with space', 'tab\there', 'caf\u00e9', '']) {
        const echoed = (await request(gw, { path: '/healthz', headers: { 'x-request-id': id } })).headers['x-request-id'];
        assert.ok(echoed && echoed !== id, `echoed ${JSON.stringify(id)}`);
    }
});

scenario('keep-alive survives every application error', async (t) => {
    const gw = await startGateway(t, DEMO);
    const raw = await connect(t, gw);
    for (const [bytes, status] of [
        [rawChat('{'), 400],
        [rawChat(chat('nonesuch')), 404],
        [rawChat(chat('demo'), { key: 'sk-wrong' }), 401],
        [rawRequest('GET', '/nothing'), 404],
        [rawRequest('GET', '/v1/chat/completions'), 405],
        [rawChat(chat('demo-error', 'bad_request')), 400],
        [rawChat(chat('demo', 'and still here')), 200],
    ]) {
        raw.send(bytes);
        const answer = await raw.response();
        assert.equal(answer.status, status, answer.text);
        if (status === 200) assert.equal(JSON.parse(answer.text).choices[0].message.content, 'and still here');
    }
});

scenario('the wrong media type of a body', async (t) => {
    const gw = await startGateway(t, DEMO);
    for (const type of ['application/json', 'application/json; charset=utf-8', 'APPLICATION/JSON', 'text/plain'])
        assert.ok([200, 415].includes((await request(gw, { body: chat('demo'), headers: { 'content-type': type } })).status), type);
    const gzip = await request(gw, { body: gzipSync(JSON.stringify(chat('demo'))), headers: { 'content-encoding': 'gzip' } });
    assert.ok([400, 415].includes(gzip.status), `${gzip.status} ${gzip.text}`);
});
