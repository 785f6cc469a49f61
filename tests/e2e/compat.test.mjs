// In the place of another gateway: its environment and nothing else, its users' curl lines, its clients.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import OpenAI from 'openai';
import { CLIENT_KEY, chat, makeDir, request, runCommand, scenario, startGateway, until } from '../lib/gateway.mjs';
import { startHttpProxy } from '../lib/fake_proxy.mjs';
import { FIREBASE_KEY, MODELS, say as alexSay, startFakeAlexSidebar } from '../lib/fake_alexsidebar.mjs';
import { IMAGE_BYTES, say as gensparkSay, session, startFakeGenspark, startVerifier } from '../lib/fake_genspark.mjs';
import { say, sessionToken, startFakeHix } from '../lib/fake_hix.mjs';
import { dumpOf, sqliteFile } from '../lib/hixai2api_data.mjs';

const SECRET = '123456'; // as the compose files of all three have it
const REFUSED = (message) => ({ error: { message, type: 'invalid_request_error', param: '', code: 'invalid_authorization' } });
const TOO_OFTEN = { success: false, message: '请求过于频繁,请稍后再试' };

/** curl as a shell would run it: {status, headers, text, json}. */
function curl(...args) {
    return new Promise((done, fail) =>
        execFile('curl', ['-sS', '-i', '--max-time', '20', ...args], { encoding: 'utf8', env: { PATH: process.env.PATH } }, (error, stdout, stderr) => {
            if (error) return fail(new Error(stderr || error.message));
            const at = stdout.indexOf('\r\n\r\n');
            const head = stdout.slice(0, at);
            const text = stdout.slice(at + 4);
            done({
                status: Number(head.split(' ')[1]),
                head,
                text,
                get json() {
                    return JSON.parse(text);
                },
            });
        }),
    );
}

/** What a system makes of its environment: `chatmux print-config` as {section.key: value}. */
function effective(env) {
    const dir = makeDir();
    const r = runCommandBare(['print-config'], env, dir);
    assert.equal(r.code, 0, r.out);
    const found = {};
    let section = '';
    for (const line of r.stdout.split('\n')) {
        const head = /^\[(.+)\]$/.exec(line);
        const pair = /^([\w.-]+) = ?(.*)$/.exec(line);
        if (head) section = head[1];
        else if (pair) found[`${section}.${pair[1]}`] = pair[2];
    }
    return found;
}

/** The binary with exactly this environment. */
function runCommandBare(args, env, dir = makeDir()) {
    // runCommand() adds PATH and HOME, which none of these systems reads
    return runCommand(args, { dir, env });
}

/** hixai2api in front of a fake platform. Its address is the one thing its own environment cannot say. */
async function hix(t, seed = {}, { accounts = 1, fake: fakeOptions } = {}) {
    const fake = await startFakeHix(t, { sessions: ['hixOne', 'hixTwo'].map(sessionToken), ...fakeOptions });
    const gw = await startGateway(t, { seed: { BACKEND_SECRET: SECRET, CHATMUX_PROVIDER_HIX_BASE_URL: fake.base, ...seed } });
    fake.always(say.answer({ pieces: ['Blue'] }));
    for (const session of fake.sessions.slice(0, accounts)) {
        const added = await curl(...cookieLine(gw, session));
        assert.deepEqual([added.status, added.json], [200, { code: 0, message: 'success', data: '' }]);
    }
    return { fake, gw };
}

/** The line of hixai2api's README that adds a cookie. */
const cookieLine = (gw, cookie) => [
    '-X', 'PUT', `${gw.url}/api/cookie`,
    '-H', 'accept: application/json', '-H', `Authorization: ${SECRET}`, '-H', 'Content-Type: application/json',
    '-d', JSON.stringify({ cookie }),
];
const askLine = (gw, { path = '/v1/chat/completions', key, model = 'gpt-4o', ...more } = {}) => [
    `${gw.url}${path}`, '-H', 'Content-Type: application/json', ...(key ? ['-H', `Authorization: Bearer ${key}`] : []),
    '-d', JSON.stringify({ model, messages: [{ role: 'user', content: 'Name a colour.' }], ...more }),
];

// ---- which system, and its defaults -----------------------------------------------------------------------------

scenario('the environment chooses the system, with its port and defaults', async () => {
    for (const env of [{ MYSQL_DSN: 'u:p@tcp(db:3306)/x' }, { BACKEND_SECRET: SECRET }, { CHATMUX_COMPAT: 'hixai2api' }]) {
        const c = effective(env);
        assert.equal(c['server.listen'], '0.0.0.0:7044');
        assert.equal(c['server.compat'], 'hixai2api');
        assert.equal(c['server.cors_origins'], '*');
        assert.equal(c['auth.ip_requests_per_minute'], '60');
        assert.equal(c['provider hix.type'], 'hix');
    }
});

scenario('what contradicts itself, or is not there yet, is refused with the names', async () => {
    const both = runCommandBare(['serve'], { GS_COOKIE: 'a', AS_COOKIE: 'b' });
    assert.equal(both.code, 1);
    assert.match(both.stderr, /GS_COOKIE.*AS_COOKIE/);
    for (const name of ['hot-apis', 'aiproxy']) {
        const r = runCommandBare(['serve'], { CHATMUX_COMPAT: name });
        assert.equal(r.code, 1);
        assert.match(r.stderr, new RegExp(`CHATMUX_COMPAT.*${name} is not understood yet`));
    }
    assert.match(runCommandBare(['serve'], { CHATMUX_COMPAT: 'hixapi' }).stderr, /must be one of hixai2api/);
});

scenario('print-config names the variable, and tells no secret', async () => {
    const r = runCommandBare(['print-config'], { BACKEND_SECRET: 'very-secret-4711', PORT: '7100', MYSQL_DSN: 'u:very-secret-4711@tcp(db)/x' });
    assert.match(r.stdout, /; environment PORT\nlisten = 0\.0\.0\.0:7100\n/);
    assert.match(r.stdout, /; environment BACKEND_SECRET\nadmin_secret = /);
    assert.ok(!r.out.includes('very-secret-4711'));
});

// ---- hixai2api --------------------------------------------------------------------------------------------------

scenario('hixai2api: cookies and keys by its admin routes, chat by its curl lines', async (t) => {
    const { fake, gw } = await hix(t);
    assert.match(gw.output, /there is no client key: whoever reaches this port uses your accounts/);
    const open = await curl(...askLine(gw));
    assert.deepEqual([open.status, open.json.choices[0].message.content], [200, 'Blue']);
    assert.deepEqual(Object.keys(open.json).sort(), ['choices', 'created', 'id', 'model', 'object', 'suggestions', 'system_fingerprint', 'usage']);
    assert.deepEqual([open.json.suggestions, open.json.system_fingerprint, open.json.choices[0].logprobs], [null, null, null]);
    assert.deepEqual(open.json.choices[0].delta, { content: '', role: '' });
    assert.equal(fake.of('/api/hix/chat').length, 1);

    const put = await curl('-X', 'PUT', `${gw.url}/api/key`, '-H', `Authorization: Bearer ${SECRET}`, '-d', '{"apiKey":"sk-client-one-4711","remark":"one"}');
    assert.deepEqual([put.status, put.json.code], [200, 0]);
    const refused = await curl(...askLine(gw));
    assert.deepEqual([refused.status, refused.json], [401, REFUSED('API-KEY校验失败')]);
    assert.deepEqual((await curl(...askLine(gw, { key: 'sk-wrong-key-4711' }))).json, REFUSED('API-KEY校验失败'));
    assert.equal((await curl(...askLine(gw, { key: 'sk-client-one-4711' }))).status, 200);
    const bare = await curl(`${gw.url}/v1/models`, '-H', 'Authorization: sk-client-one-4711');
    assert.equal(bare.json.object, 'list');
    assert.ok(bare.json.data.every((m) => m.object === 'model' && typeof m.id === 'string'));
    assert.ok(bare.json.data.some((m) => m.id === 'deepseek-r1'));

    for (const wrong of ['', 'nope'])
        assert.deepEqual([(await curl('-X', 'POST', `${gw.url}/api/auth/verify`, '-H', `Authorization: ${wrong}`)).json], [{ code: 1, message: 'unauthorized', data: '' }]);
    assert.deepEqual((await curl('-X', 'POST', `${gw.url}/api/auth/verify`, '-H', `Authorization: ${SECRET}`)).json, { code: 0, message: 'success', data: '' });
});

scenario('hixai2api: chunks have its members, and their figures add up', async (t) => {
    const { fake, gw } = await hix(t);
    fake.always(say.answer({ reasoning: ['hm'], pieces: ['Bl', 'ue'] }));
    const answer = await curl('-N', ...askLine(gw, { model: 'deepseek-r1', stream: true }));
    assert.match(answer.head, /content-type: text\/event-stream/i);
    assert.match(answer.head, /access-control-allow-origin|cache-control: no-cache/i);
    const lines = answer.text.split('\n\n').filter(Boolean);
    assert.equal(lines.at(-1), 'data: [DONE]');
    const chunks = lines.slice(0, -1).map((line) => JSON.parse(line.replace(/^data: /, '')));
    for (const chunk of chunks) {
        assert.equal(chunk.object, 'chat.completion.chunk');
        assert.equal('message' in chunk.choices[0], false); // it would take the text from OpenAI's SDK, below
        assert.equal(chunk.choices[0].delta.role, 'assistant');
        assert.equal(typeof chunk.usage.total_tokens, 'number');
        assert.deepEqual([chunk.suggestions, chunk.system_fingerprint, chunk.choices[0].logprobs], [null, null, null]);
    }
    assert.equal(chunks.map((c) => c.choices[0].delta.content).join(''), '<think>\nhm\n</think>\n\nBlue');
    assert.deepEqual(chunks.map((c) => c.choices[0].finish_reason), [...chunks.slice(1).map(() => null), 'stop']);
    assert.deepEqual(chunks.slice(0, -1).map((c) => c.usage.total_tokens).filter(Boolean), []);
    assert.ok(chunks.at(-1).usage.total_tokens > 0);

    const sdk = new OpenAI({ baseURL: gw.base, apiKey: 'any', maxRetries: 0 });
    const final = await sdk.chat.completions.stream({ model: 'gpt-4o', messages: [{ role: 'user', content: 'x' }], stream_options: { include_usage: true } }).finalChatCompletion();
    assert.equal(final.choices[0].message.content, '<think>\nhm\n</think>\n\nBlue');
    assert.ok(final.usage.total_tokens > 0);
});

scenario('hixai2api: the errors its users look for', async (t) => {
    const { fake, gw } = await hix(t, {}, { accounts: 0, fake: { strict: false } });
    const none = await curl(...askLine(gw));
    assert.equal(none.status, 500);
    assert.equal(none.json.error, 'No valid cookies available');
    assert.equal((await curl(...askLine(gw, { model: 'no-such-model' }))).json.error, 'no model');
    const broken = await curl(`${gw.url}/v1/chat/completions`, '-d', '{');
    assert.deepEqual([broken.status, broken.json.error.message, broken.json.error.code], [500, 'Invalid request parameters', '500']);
    assert.match(broken.head, /x-should-retry: false/i);

    await curl(...cookieLine(gw, fake.sessions[0]));
    const long = await curl(...askLine(gw, { messages: [{ role: 'user', content: 'x'.repeat(9000) }] }));
    assert.equal(long.status, 500);
    assert.match(long.json.error, /^input text too long: 9000/);
    fake.always(say.status(403, '<html><title>Just a moment...</title></html>', { 'content-type': 'text/html' }));
    const challenge = await curl(...askLine(gw));
    assert.deepEqual([challenge.status, challenge.json.error], [500, 'cf challenge']);
    fake.always(say.trpc(-32029, 'TOO_MANY_REQUESTS', 429));
    await curl(...cookieLine(gw, fake.sessions[1]));
    assert.equal((await curl(...askLine(gw))).json.error, 'All cookies are temporarily unavailable.');
});

scenario('hixai2api: the models that its cookies can pay', async (t) => {
    const { fake, gw } = await hix(t, {}, { accounts: 0 });
    const listed = async () => (await curl(`${gw.url}/v1/models`)).json.data.map((m) => m.id);
    assert.deepEqual(await listed(), []);
    fake.credit.set(fake.sessions[0], { standard: 35, advanced: 900, active: false, ends: null });
    await curl(...cookieLine(gw, fake.sessions[0]));
    const few = await listed();
    assert.deepEqual(['gpt-4o', 'deepseek-r1', 'grok-2', 'claude-3-7-sonnet'].map((id) => few.includes(id)), [true, true, false, false]);
    fake.credit.set(fake.sessions[1], { standard: 100, advanced: 20, active: true, ends: null });
    await curl(...cookieLine(gw, fake.sessions[1]));
    const more = await listed();
    assert.deepEqual(['gpt-4o', 'grok-2', 'claude-3-7-sonnet', 'openai-o1'].map((id) => more.includes(id)), [true, true, true, false]);
});

scenario('hixai2api: an address that the site does not want', async (t) => {
    const { fake, gw } = await hix(t, {}, { fake: { strict: false } });
    fake.always(say.status(403, '<html><title>403</title></html>', { 'content-type': 'text/html' }));
    const forbidden = await curl(...askLine(gw));
    assert.deepEqual([forbidden.status, forbidden.json.error], [500, 'Forbidden']);
    assert.match(forbidden.json.detail, /a proxy .* may help/);
});

scenario('hixai2api: ROUTE_PREFIX, PROXY_URL and the page of its routes', async (t) => {
    const proxy = await startHttpProxy(t, { 'hix.test': '127.0.0.1' });
    const fake = await startFakeHix(t, { strict: false });
    const gw = await startGateway(t, {
        seed: { BACKEND_SECRET: SECRET, ROUTE_PREFIX: 'hf', PROXY_URL: `http://127.0.0.1:${proxy.port}`, CHATMUX_PROVIDER_HIX_BASE_URL: `http://hix.test:${fake.port}` },
    });
    await curl(...cookieLine(gw, fake.sessions[0]));
    await curl(...askLine(gw, { path: '/hf/v1/chat/completions' }));
    assert.ok(proxy.seen.includes(`hix.test:${fake.port}`), String(proxy.seen));
    assert.equal((await curl(`${gw.url}/hf/v1/models`)).status, 200);

    const page = await curl(`${gw.url}/swagger/index.html`);
    assert.equal(page.status, 200);
    assert.match(page.head, /content-type: text\/html/i);
    assert.match((await curl(`${gw.url}/swagger/doc.json`)).json.openapi, /^3\./);
    for (const path of ['/v1/nope', '/api/nope', '/v1/chat/nope']) {
        const nowhere = await curl(`${gw.url}${path}`);
        assert.deepEqual([nowhere.status, nowhere.json], [404, { error: 'API endpoint not found', path, code: 404 }]);
    }
    assert.match((await curl(`${gw.url}/nope`)).json.error.message, /unknown path/);
    const off = await startGateway(t, { seed: { BACKEND_SECRET: SECRET, SWAGGER_ENABLE: '0' } });
    assert.equal((await curl(`${off.url}/swagger/index.html`)).status, 404);
});

scenario('hixai2api: REQUEST_RATE_LIMIT, IP_BLACK_LIST, BACKEND_API_ENABLE', async (t) => {
    const gw = await startGateway(t, { seed: { BACKEND_SECRET: SECRET, REQUEST_RATE_LIMIT: '3' } });
    for (let i = 0; i < 3; i++) assert.equal((await curl(`${gw.url}/v1/models`)).status, 200);
    const limited = await curl(`${gw.url}/v1/models`);
    assert.deepEqual([limited.status, limited.json], [429, TOO_OFTEN]);
    assert.equal((await curl(`${gw.url}/healthz`)).status, 200); // health checks never count
    const verify = (secret) => curl('-X', 'POST', `${gw.url}/api/auth/verify`, '-H', `Authorization: ${secret}`);
    for (let i = 0; i < 4; i++) assert.equal((await verify(SECRET)).status, 200); // nor does the operator
    assert.equal((await verify('wrong')).status, 429);

    const blocking = await startGateway(t, {
        seed: { BACKEND_SECRET: SECRET, IP_BLACK_LIST: '127.0.0.1,10.9.8.7' },
        readyTarget: (one) => ({ port: one.port, localAddress: '127.0.0.2' }),
    });
    const blocked = await curl(`${blocking.url}/v1/models`);
    assert.deepEqual([blocked.status, blocked.json], [403, { error: 'Forbidden' }]);
    assert.equal((await curl('--interface', '127.0.0.2', `${blocking.url}/v1/models`)).status, 200);

    const off = await startGateway(t, { seed: { BACKEND_SECRET: SECRET, BACKEND_API_ENABLE: '0' } });
    assert.equal((await curl('-X', 'POST', `${off.url}/api/auth/verify`, '-H', `Authorization: ${SECRET}`)).status, 404);
});

scenario('hixai2api: what has no effect is told once, at every start', async (t) => {
    const gw = await startGateway(t, { seed: { MYSQL_DSN: 'u:very-secret-4711@tcp(db:3306)/x', SQL_MAX_LIFETIME: '60', BACKEND_SECRET: SECRET } });
    const times = (text) => gw.output.split(text).length - 1;
    assert.equal(times('MYSQL_DSN has no effect'), 1);
    assert.equal(times('SQL_MAX_LIFETIME has no effect'), 1);
    await gw.restart();
    assert.equal(times('MYSQL_DSN has no effect'), 2);
    assert.equal(times('there is no client key'), 2);
    assert.ok(!gw.output.includes('very-secret-4711'));
});

// ---- genspark2api -------------------------------------------------------------------------------------------------

async function genspark(t, seed = {}, fakeOptions) {
    const fake = await startFakeGenspark(t, fakeOptions);
    const gw = await startGateway(t, {
        seed: {
            GS_COOKIE: fake.sessions.map((s) => `session_id=${s}`).join(','), API_SECRET: `${SECRET},sk-second-4711`,
            CHATMUX_PROVIDER_GENSPARK_BASE_URL: fake.base, CHATMUX_PROVIDER_GENSPARK_X_POLL_INTERVAL: '20ms', CHATMUX_RETRY_RETRIES: '0', ...seed,
        },
    });
    return { fake, gw };
}

scenario('genspark2api: its cookies and secrets by comma, its models, its errors', async (t) => {
    const { fake, gw } = await genspark(t, { REQUEST_RATE_LIMIT: '0', RATE_LIMIT_COOKIE_LOCK_DURATION: '120' }, { sessions: [session(1), session(2)], strict: false });
    assert.deepEqual([(await curl(`${gw.url}/`)).text, (await curl(`${gw.url}/swagger/index.html`)).status], ['', 404]);
    assert.deepEqual((await curl(...askLine(gw, { model: 'gpt-5.2' }))).json, REFUSED('authorization(api-secret)校验失败'));
    for (const key of [SECRET, 'sk-second-4711'])
        assert.equal((await curl(...askLine(gw, { key, model: 'gpt-5.2', channelId: 'x' }))).json.choices[0].message.content, 'Blue');
    assert.equal(new Set(fake.asks.map((rec) => rec.session)).size, 2);
    const listed = (await curl(`${gw.url}/v1/models`, '-H', `Authorization: ${SECRET}`)).json.data.map((m) => m.id);
    for (const id of ['gpt-5.2', 'nano-banana-pro', 'sora-2']) assert.ok(listed.includes(id), id);
    await curl(...askLine(gw, { key: SECRET, model: 'a-name-of-nobody' }));
    assert.equal(fake.asks.at(-1).json.use_moa_proxy, true, 'a name that it does not know is answered by the mixture');

    const failing = async (behave) => {
        fake.always(behave);
        return (await curl(...askLine(gw, { key: SECRET, model: 'gpt-5.2' }))).json.error;
    };
    assert.equal(await failing(gensparkSay.outOfService()), 'Genspark Service Unavailable');
    assert.equal(await failing(gensparkSay.status(500, 'Internal Server Error')), 'An error occurred with the current request, please try again.');
    assert.equal(await failing(gensparkSay.status(429, 'Rate limit exceeded cf1')), 'All cookies are temporarily unavailable.');
    const none = await curl(...askLine(gw, { key: SECRET, model: 'gpt-5.2' }));
    assert.deepEqual([none.status, none.json.error], [500, 'No valid cookies available']);
    assert.ok(Number(/retry-after: (\d+)/i.exec(none.head)[1]) > 60, 'locked for as long as the variable says');
});

for (const [what, behave, error] of [['challenge', () => gensparkSay.challenge(), 'Detected Cloudflare Challenge Page'], ['block', () => gensparkSay.blocked(), 'CloudFlare: Sorry, you have been blocked']])
    scenario(`genspark2api: the page of a ${what}`, async (t) => {
        const { fake, gw } = await genspark(t, {}, { sessions: [session(1)], strict: false });
        fake.always(behave());
        const answer = await curl(...askLine(gw, { key: SECRET, model: 'gpt-5.2' }));
        assert.deepEqual([answer.status, answer.json.error], [500, error]);
        assert.ok(answer.json.detail.length > 20);
    });

scenario('genspark2api: pictures and videos', async (t) => {
    const { fake, gw } = await genspark(t);
    const post = (path, body) => curl(`${gw.url}${path}`, '-H', `Authorization: Bearer ${SECRET}`, '-H', 'Content-Type: application/json', '-d', typeof body === 'string' ? body : JSON.stringify(body));
    const picture = await post('/v1/images/generations', { model: 'nano-banana-pro', prompt: 'a dot', response_format: 'b64_json' });
    assert.equal(picture.status, 200, picture.text);
    assert.deepEqual([picture.json.dailyLimit, picture.json.suggestions], [false, null]);
    assert.deepEqual(Object.keys(picture.json.data[0]).sort(), ['b64_json', 'revised_prompt', 'url']);
    assert.equal(picture.json.data[0].revised_prompt, 'a dot');
    assert.deepEqual(Buffer.from(picture.json.data[0].b64_json, 'base64'), IMAGE_BYTES);
    const video = await post('/v1/videos/generations', { model: 'sora-2', prompt: 'a dot', aspect_ratio: '9:16', duration: 5, auto_prompt: false });
    assert.equal(video.status, 200, video.text);
    const wrong = await post('/v1/videos/generations', { model: 'gpt-5.2', prompt: 'a dot', aspect_ratio: '9:16', duration: 5, auto_prompt: false });
    assert.deepEqual([wrong.status, wrong.json.error], [400, 'Invalid model']);
    const broken = await post('/v1/images/generations', '{');
    assert.deepEqual([broken.status, typeof broken.json.error], [400, 'string']);
    fake.media.outcome = 'FAILED';
    const failed = await post('/v1/images/generations', { model: 'nano-banana-pro', prompt: 'a dot' });
    assert.deepEqual([failed.status, failed.json.error.type, failed.json.error.code], [500, 'request_error', '500']);
    const line = await curl(...askLine(gw, { key: SECRET, model: 'nano-banana-pro' }));
    assert.equal(line.status, 500); // the same failure, told as chat tells it
    assert.equal(typeof line.json.error, 'string');
});

scenario('genspark2api: chats go on, are deleted, are bound to models; a token from a service', async (t) => {
    const told = (fake) => fake.asks.map((rec) => rec.json.project_id);
    const again = async (gw) => {
        const first = [{ role: 'user', content: 'FIRST' }];
        for (const messages of [first, [...first, { role: 'assistant', content: 'Blue' }, { role: 'user', content: 'SECOND' }], [{ role: 'user', content: 'ANOTHER' }]])
            assert.equal((await curl(...askLine(gw, { key: SECRET, model: 'gpt-5.2', messages }))).status, 200);
    };
    const one = await genspark(t, {}, { sessions: [session(1)] });
    await again(one.gw);
    assert.deepEqual(told(one.fake).map((id) => id !== null), [false, true, false], 'its own conversation');
    const model = await genspark(t, { AUTO_MODEL_CHAT_MAP_TYPE: '1' }, { sessions: [session(1)] });
    await again(model.gw);
    assert.deepEqual(told(model.fake).map((id) => id !== null), [false, true, true], 'the last one of client and model');
    const none = await genspark(t, { AUTO_MODEL_CHAT_MAP_TYPE: '0', AUTO_DEL_CHAT: '1' }, { sessions: [session(1)] });
    await again(none.gw);
    await until(() => none.fake.undeleted().length === 0, 'the chats to be deleted');

    const verifier = await startVerifier(t);
    const asked = await genspark(t, { RECAPTCHA_PROXY_URL: verifier.url }, { sessions: [session(1)], verifier });
    assert.equal((await curl(...askLine(asked.gw, { key: SECRET, model: 'gpt-5.2' }))).status, 200);
    assert.notEqual(asked.fake.asks[0].json.g_recaptcha_token, '');
});

// ---- alexsidebar2api ----------------------------------------------------------------------------------------------

scenario('alexsidebar2api: its tokens and secrets by comma, its lock, its models and errors', async (t) => {
    const fake = await startFakeAlexSidebar(t, { strict: false });
    const gw = await startGateway(t, {
        seed: {
            AS_COOKIE: fake.credentials.join(','), API_SECRET: `${SECRET},sk-second-4711`, RATE_LIMIT_COOKIE_LOCK_DURATION: '120', AS_FIREBASE_KEY: FIREBASE_KEY,
            CHATMUX_PROVIDER_ALEXSIDEBAR_BASE_URL: fake.base, CHATMUX_PROVIDER_ALEXSIDEBAR_X_TOKEN_URL: fake.base,
        },
    });
    const root = await curl(`${gw.url}/`);
    assert.deepEqual([root.status, root.text], [200, '']);
    assert.deepEqual([(await curl(...askLine(gw))).status, (await curl(...askLine(gw))).json], [401, REFUSED('API-KEY校验失败')]);
    for (const key of [SECRET, 'sk-second-4711']) {
        const answer = await curl(...askLine(gw, { key, model: 'claude-3-7-sonnet', max_tokens: 100, temperature: 0.5 }));
        assert.deepEqual([answer.status, answer.json.choices[0].message.content], [200, 'Blue']);
    }
    const listed = (await curl(`${gw.url}/v1/models`, '-H', `Authorization: ${SECRET}`)).json.data.map((m) => m.id).sort();
    assert.deepEqual(listed, Object.keys(MODELS).sort());
    const unknown = await curl(...askLine(gw, { key: SECRET, model: 'gpt-9' }));
    assert.deepEqual([unknown.status, unknown.json], [400, { error: { message: 'Model gpt-9 not supported', type: 'invalid_request_error', param: '', code: 'invalid_model' } }]);

    const long = await curl(...askLine(gw, { key: SECRET, model: 'o1', max_tokens: 100001 }));
    assert.deepEqual([long.status, long.json], [400, { error: { message: 'Max tokens 100001 exceeds limit 100000', type: 'invalid_request_error', param: '', code: 'invalid_max_tokens' } }]);

    fake.always(alexSay.status(429, { error: 'Too many concurrent requests', message: 'You have reached your maximum concurrent request limit. Please try again later.' }));
    const limited = await curl(...askLine(gw, { key: SECRET, model: 'o1' }));
    assert.deepEqual([limited.status, limited.json.error], [500, 'All cookies are temporarily unavailable.']);
    const none = await curl(...askLine(gw, { key: SECRET, model: 'o1' }));
    assert.equal(none.json.error, 'no cookies available');
    assert.ok(Number(/retry-after: (\d+)/i.exec(none.head)[1]) > 60, 'locked for as long as the variable says');
    assert.equal((await curl(`${gw.url}/swagger/index.html`)).status, 200);
});

scenario('alexsidebar2api: without the one variable more it serves, and says which', async (t) => {
    const fake = await startFakeAlexSidebar(t);
    const gw = await startGateway(t, { seed: { AS_COOKIE: fake.credentials.join(','), CHATMUX_PROVIDER_ALEXSIDEBAR_BASE_URL: fake.base, CHATMUX_PROVIDER_ALEXSIDEBAR_X_TOKEN_URL: fake.base } });
    const lacking = await curl(...askLine(gw, { model: 'o1' }));
    assert.equal(lacking.status, 503, lacking.text);
    assert.match(lacking.json.error.message, /x\.firebase_key .*AS_FIREBASE_KEY/);
    assert.equal((await curl(`${gw.url}/v1/models`)).json.data.length, Object.keys(MODELS).length);
    assert.deepEqual([fake.tokens.length, (await curl(`${gw.url}/readyz`)).status], [0, 200]);
});

// ---- clients ----------------------------------------------------------------------------------------------------

scenario('NextChat and one-api ask what they ask', async (t) => {
    const { gw } = await hix(t);
    await curl('-X', 'PUT', `${gw.url}/api/key`, '-H', `Authorization: ${SECRET}`, '-d', '{"apiKey":"sk-next-chat-4711","remark":"next"}');
    const headers = { origin: 'https://chat.example.com', accept: 'application/json', 'x-requested-with': 'XMLHttpRequest' };
    const key = 'sk-next-chat-4711';

    const preflight = await request(gw, {
        method: 'OPTIONS', key: null,
        headers: { origin: headers.origin, 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization,content-type' },
    });
    assert.equal(preflight.status, 204);
    assert.equal(preflight.headers['access-control-allow-origin'], '*');
    assert.match(preflight.headers['access-control-allow-headers'], /authorization/);
    const refused = await request(gw, { body: chat('gpt-4o'), key: 'sk-wrong-4711', headers });
    assert.deepEqual([refused.status, refused.headers['access-control-allow-origin']], [401, '*']);
    const streamed = await request(gw, { body: chat('gpt-4o', 'x', { stream: true, temperature: 0.5, presence_penalty: 0, frequency_penalty: 0, top_p: 1 }), key, headers });
    assert.match(streamed.text, /"content":"Blue"/);
    assert.match(streamed.text, /data: \[DONE\]\n\n$/);

    for (const prefix of ['', '/v1']) {
        const limit = await request(gw, { path: `${prefix}/dashboard/billing/subscription`, key, headers });
        assert.deepEqual([limit.status, limit.json.object, limit.json.hard_limit_usd], [200, 'billing_subscription', 100000000]);
        const used = await request(gw, { path: `${prefix}/dashboard/billing/usage?start_date=2026-11-01&end_date=2036-11-30`, key, headers });
        assert.deepEqual([used.status, used.json.object, typeof used.json.total_usage], [200, 'list', 'number']);
        assert.equal((await request(gw, { path: `${prefix}/dashboard/billing/usage`, key: 'sk-wrong-4711' })).status, 401);
    }
    assert.equal((await request(gw, { path: '/dashboard/billing/usage?start_date=soon', key })).status, 400);
});

scenario('billing tells the budget of the key and what the ledger has', async (t) => {
    const gw = await startGateway(t, {
        config: { auth: { admin_secret: 'admin-4711' }, 'provider demo': { type: 'demo' }, 'price demo': { input: '1000', output: '2000' } },
    });
    const made = await request(gw, { path: '/admin/api/keys', key: 'admin-4711', body: { name: 'team', budget_usd: 20, budget_period: 'month' } });
    const { key } = made.json;
    const ask = (path, who = key) => request(gw, { path, key: who });
    assert.equal((await ask('/v1/dashboard/billing/subscription')).json.hard_limit_usd, 20);
    assert.equal((await ask('/v1/dashboard/billing/usage')).json.total_usage, 0);
    const answer = (await request(gw, { body: chat('demo', 'hello there'), key })).json;
    await request(gw, { body: chat('demo', 'hello from somebody else, who says a lot more') });
    const cents = (answer.usage.prompt_tokens * 1000 + answer.usage.completion_tokens * 2000) / 1e6 * 100;
    const used = await ask('/v1/dashboard/billing/usage');
    assert.ok(Math.abs(used.json.total_usage - cents) < 1e-3 && cents > 0, `${used.text} is not ${cents}`);
    const row = (await request(gw, { path: '/admin/api/keys', key: 'admin-4711' })).json.data.find((k) => k.name === 'team');
    assert.ok(Math.abs(row.spent_usd * 100 - used.json.total_usage) < 1e-3, JSON.stringify(row));
    assert.ok((await ask('/v1/dashboard/billing/usage', CLIENT_KEY)).json.total_usage > used.json.total_usage, 'each its own');
    assert.equal((await ask('/v1/dashboard/billing/usage?start_date=2020-01-01&end_date=2020-01-31')).json.total_usage, 0);
});

scenario('what a key spends while the ledger is asked for it counts once', async (t) => {
    const gw = await startGateway(t, { config: { auth: { admin_secret: 'admin-4711' }, 'provider demo': { type: 'demo' }, 'price demo': { input: '1000', output: '2000' } } });
    const admin = (path, body) => request(gw, { path: `/admin/api/${path}`, key: 'admin-4711', body });
    for (let i = 0; i < 40; i++) {
        const { id, key } = (await admin('keys', { name: `key ${i}`, budget_usd: 20, budget_period: 'month' })).json; // the ledger is asked now
        const { usage } = (await request(gw, { body: chat('demo', 'hello there'), key })).json;
        const usd = (usage.prompt_tokens * 1000 + usage.completion_tokens * 2000) / 1e6;
        await sleep(20);
        const { spent_usd } = (await request(gw, { path: `/admin/api/keys/${id}`, key: 'admin-4711' })).json;
        assert.ok(Math.abs(spent_usd - usd) < 1e-9, `round ${i}: ${spent_usd} is not ${usd}`);
    }
});

// ---- what hixai2api kept ------------------------------------------------------------------------------------------

const KEYS = [['sk-kept-one-4711', "team 'a'"], ['sk-kept-two-4711', null]];

scenario('import hixai2api: while no gateway runs, into the store', async (t) => {
    const fake = await startFakeHix(t, { sessions: ['hixOne', 'hixTwo'].map(sessionToken) });
    fake.always(say.answer({ pieces: ['Blue'] }));
    const dir = makeDir();
    const env = { BACKEND_SECRET: SECRET, PORT: '1', CHATMUX_PROVIDER_HIX_BASE_URL: fake.base, CHATMUX_STORE_STATE_DIR: join(dir, 'state') };
    const file = join(dir, 'dump.sql');
    writeFileSync(file, dumpOf(fake.sessions, KEYS));
    const first = runCommandBare(['import', 'hixai2api', file], env, dir);
    assert.equal(first.code, 0, first.out);
    assert.match(first.stdout, /accounts: 2 taken over\nclient keys: 2 taken over\n$/);
    const again = runCommandBare(['import', 'hixai2api', file], env, dir);
    assert.match(again.stdout, /accounts: 0 taken over, 2 were there already\nclient keys: 0 taken over, 2 were there already/);

    const gw = await startGateway(t, { seed: { ...env, PORT: undefined } });
    assert.ok(!/there is no client key/.test(gw.output));
    assert.equal((await curl(...askLine(gw))).status, 401);
    assert.equal((await curl(...askLine(gw, { key: 'sk-kept-one-4711' }))).json.choices[0].message.content, 'Blue');
    const keys = (await curl(`${gw.url}/api/key/all`, '-H', `Authorization: ${SECRET}`)).json.data;
    assert.deepEqual(keys.map((k) => k.remark), ["team 'a'", 'unnamed']);
    const cookies = (await curl(`${gw.url}/api/cookie/all`, '-H', `Authorization: ${SECRET}`)).json.data;
    assert.deepEqual(cookies.map((c) => c.remark), ['account 0', 'account 1']);
});

scenario('import hixai2api: into the gateway that runs', async (t) => {
    const { fake, gw } = await hix(t, {}, { accounts: 1 });
    const file = join(gw.dir, 'dump.sql');
    const env = { BACKEND_SECRET: SECRET, PORT: String(gw.port) };
    writeFileSync(file, dumpOf(fake.sessions, [...KEYS, ['not a key', 'spaces']]));
    const r = runCommandBare(['import', 'hixai2api', file], env, gw.dir);
    assert.equal(r.code, 1, r.out); // one of the keys cannot be used
    assert.match(r.stdout, /accounts: 1 taken over, 1 were there already\nclient keys: 2 taken over, 1 cannot be used/);
    assert.match(r.stderr, /visible ASCII/);
    assert.equal((await curl(...askLine(gw, { key: 'sk-kept-two-4711' }))).status, 200);
    assert.equal((await curl(...askLine(gw))).status, 401);

    const blind = runCommandBare(['import', 'hixai2api', file], { CHATMUX_COMPAT: 'hixai2api', PORT: String(gw.port) }, gw.dir);
    assert.equal(blind.code, 1);
    assert.match(blind.stderr, /a gateway runs at .*BACKEND_SECRET/);
});

scenario('import says what is wrong with the file', async () => {
    const dir = makeDir();
    const file = join(dir, 'dump.sql');
    const attempt = (text, kind = 'hixai2api') => {
        writeFileSync(file, text);
        const r = runCommandBare(['import', kind, file], { CHATMUX_COMPAT: 'hixai2api', PORT: '1' }, dir);
        assert.equal(r.code, 1);
        return r.stderr;
    };
    assert.match(attempt(dumpOf(['x'], KEYS).slice(0, -60)), /dump\.sql: line \d+: .*cut/);
    assert.match(attempt('SELECT 1;'), /nothing of hixai2api/);
    assert.match(attempt('', 'new-api'), /it knows hixai2api, not "new-api"/);
    const nobody = runCommandBare(['import', 'hixai2api', (writeFileSync(file, dumpOf(['x'], KEYS)), file)], { CHATMUX_SERVER_LISTEN: '127.0.0.1:1' }, dir);
    assert.match(nobody.stderr, /no provider of type hix/);
});

scenario('at its first start the gateway takes over the SQLite file it finds', async (t) => {
    const fake = await startFakeHix(t, { sessions: ['hixOne', 'hixTwo'].map(sessionToken) });
    fake.always(say.answer({ pieces: ['Blue'] }));
    const gw = await startGateway(t, {
        seed: { BACKEND_SECRET: SECRET, CHATMUX_PROVIDER_HIX_BASE_URL: fake.base },
        prepare: (one) => sqliteFile(join(one.dir, 'hix-ai-2-api.db'), fake.sessions, KEYS),
    });
    assert.match(gw.output, /took over 2 accounts, 2 client keys and 0 conversations from \.\/hix-ai-2-api\.db/);
    assert.equal((await curl(...askLine(gw))).status, 401);
    assert.equal((await curl(...askLine(gw, { key: 'sk-kept-one-4711' }))).status, 200);
    // what an operator removes stays away
    const [row] = (await curl(`${gw.url}/api/key/all`, '-H', `Authorization: ${SECRET}`)).json.data;
    await curl('-X', 'DELETE', `${gw.url}/api/key/${row.id}`, '-H', `Authorization: ${SECRET}`);
    await gw.restart();
    assert.equal(gw.output.split('took over').length, 2);
    assert.equal((await curl(...askLine(gw, { key: 'sk-kept-one-4711' }))).status, 401);
});

scenario('the options that its program took are taken', async () => {
    const r = runCommandBare(['print-config', '--port', '7111', '--log-dir', '/tmp/logs'], { BACKEND_SECRET: SECRET, PORT: '7100' });
    assert.match(r.stdout, /; --set server\.listen\nlisten = 0\.0\.0\.0:7111\n/);
    assert.match(r.stderr, /--log-dir has no effect/);
});

scenario('hixai2api: a cookie is asked for its credit before it is kept, and all of them when that is wanted', async (t) => {
    const { fake, gw } = await hix(t, {}, { accounts: 1, fake: { strict: false } });
    const admin = (...args) => curl(...args.slice(0, -1), `${gw.url}${args.at(-1)}`, '-H', `Authorization: ${SECRET}`);
    const cookies = async () => (await admin('/api/cookie/all')).json.data;
    const [first] = await cookies();
    assert.deepEqual(Object.keys(first), ['id', 'cookie', 'credit', 'advancedCredit', 'remark', 'createTime']);
    assert.ok(first.credit > 0, JSON.stringify(first));
    assert.match(first.createTime, /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/);
    const refused = await curl(...cookieLine(gw, sessionToken('nobody')));
    assert.deepEqual([refused.status, refused.json.code, refused.json.data], [500, 1, '']);
    assert.ok(refused.json.message.length > 10);
    assert.equal((await cookies()).length, 1, 'it is not kept');
    // the same for another cookie in the place of one
    const update = (cookie) => admin('-X', 'POST', '-d', JSON.stringify({ id: first.id, cookie, remark: 'changed' }), '/api/cookie/update');
    const kept = await update(sessionToken('nobody'));
    assert.deepEqual([kept.status, kept.json.code], [500, 1], kept.text);
    assert.deepEqual(await cookies(), [first], 'nothing has changed');
    assert.deepEqual((await update(fake.sessions[1])).json, { code: 0, message: 'success', data: '' });
    assert.deepEqual((await cookies()).map((c) => [c.id, c.remark, c.cookie]), [[first.id, 'changed', fake.sessions[1].slice(-4)]]);
    assert.deepEqual((await update(fake.sessions[1].slice(-4))).json.code, 0, 'as the list shows it: the same cookie');
    await curl(...askLine(gw));
    assert.equal(fake.of('/api/hix/chat').at(-1).session, fake.sessions[1]);
    const asked = fake.requests.length;
    assert.deepEqual((await admin('-X', 'POST', '/api/cookie/credit/refresh')).json, { code: 0, message: 'success', data: '' });
    await until(() => fake.requests.length > asked, 'the credit to be asked for');
});
