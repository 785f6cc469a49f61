// Alex Sidebar through the gateway: access tokens that are made and renewed, snapshots, a month's chats.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { setTimeout as sleep } from 'node:timers/promises';
import { chat, CLIENT_KEY, request, sanitized, scenario, startGateway, until } from '../lib/gateway.mjs';
import { connect, rawChat, readChatStream } from '../lib/raw.mjs';
import { FIREBASE_KEY, localId, MODELS, refreshToken, say, startFakeAlexSidebar } from '../lib/fake_alexsidebar.mjs';

const ADMIN = 'admin-secret-0815';

const provider = (fake, more = {}) => ({ type: 'alexsidebar', base_url: fake.base, 'x.token_url': fake.base, 'x.firebase_key': FIREBASE_KEY, credentials: fake.credentials, ...more });

async function pair(t, { fake: fakeOptions, provider: more, config, env } = {}) {
    const fake = await startFakeAlexSidebar(t, fakeOptions);
    const gw = await startGateway(t, { env, config: { auth: { admin_secret: ADMIN }, retry: { retries: 0 }, 'provider alex': provider(fake, more), ...config } });
    return { fake, gw, sdk: new OpenAI({ baseURL: gw.base, apiKey: CLIENT_KEY, maxRetries: 0 }) };
}

const ask = (text) => [{ role: 'user', content: text }];
const credentials = async (gw) => (await request(gw, { path: '/admin/api/credentials', key: ADMIN })).json.data;
const allAre = (gw, state) => until(async () => (await credentials(gw)).every((c) => c.state === state), `all credentials to be ${state}`);

/* ---- answers ---- */

scenario('an answer, plain and streamed', async (t) => {
    const { fake, sdk } = await pair(t);
    const pieces = ['Bl', 'ue é', '世', '🌍 › "}', '.'];
    fake.always(say.answer({ pieces }));
    const { data, response } = await sdk.chat.completions.create({ model: 'gpt-4o', messages: ask('Name a colour.') }).withResponse();
    assert.equal(data.choices[0].message.content, pieces.join(''));
    assert.equal(data.choices[0].finish_reason, 'stop');
    assert.equal(data.model, 'gpt-4o');
    assert.equal(response.headers.get('x-chatmux-provider'), 'alex');
    assert.ok(data.usage.total_tokens > 0);

    const stream = await sdk.chat.completions.create({ model: 'alex/o1', messages: ask('Name a colour.'), stream: true });
    const deltas = [];
    for await (const chunk of stream) deltas.push(chunk.choices[0]?.delta.content ?? '');
    assert.deepEqual(deltas.filter((d) => d !== ''), pieces, 'only what is new in a snapshot is sent');
    for (const rec of fake.chats) assert.equal(rec.headers['local-id'], localId(rec.account.uid));
    assert.deepEqual(fake.chats.map((rec) => rec.json.model), ['gpt4o', 'o1']);
});

scenario('every model, by its name', async (t) => {
    const { fake, sdk, gw } = await pair(t);
    for (const [name, theirs] of Object.entries(MODELS)) {
        await sdk.chat.completions.create({ model: name, messages: ask('x') });
        const { json } = fake.chats.at(-1);
        assert.equal(json.model, theirs, name);
        assert.equal(json.messages[0].think_first, name.endsWith('-thinking'), name);
    }
    const ids = (await request(gw, { path: '/v1/models' })).json.data.map((m) => m.id);
    for (const name of Object.keys(MODELS)) assert.ok(ids.includes(name), `${name} in ${ids}`);
    await sdk.chat.completions.create({ model: 'o3-mini-search', messages: ask('news?') });
    assert.equal(fake.chats.at(-1).json.messages[0].web_access, true);
});

scenario('system text, several turns, results of tools', async (t) => {
    const { fake, sdk } = await pair(t);
    await sdk.chat.completions.create({
        model: 'claude-3-7-sonnet-thinking',
        messages: [
            { role: 'system', content: 'Be brief.' },
            { role: 'user', content: [{ type: 'text', text: 'Name' }, { type: 'text', text: 'a colour.' }] },
            { role: 'assistant', content: null, tool_calls: [{ id: 'call_1', type: 'function', function: { name: 'colours', arguments: '{}' } }] },
            { role: 'tool', tool_call_id: 'call_1', content: 'blue' },
            { role: 'assistant', content: '' },
            { role: 'user', content: 'Another.' },
        ],
    });
    const { json } = fake.chats[0];
    assert.equal(json.prompt, 'Be brief.');
    assert.deepEqual(json.messages.map((m) => [m.role, m.sections.map((s) => s.text.text), m.think_first]), [
        ['System', ['Be brief.'], false],
        ['User', ['Name', 'a colour.'], false],
        ['Assistant', ['[calls colours with {}]'], false],
        ['User', ['[result of colours]\nblue'], false],
        ['User', ['Another.'], true],
    ]);
});

scenario('thinking comes as reasoning_content, code between line feeds', async (t) => {
    const { fake, gw } = await pair(t);
    fake.always(say.snapshots([['t:Two'], ['t:Two options.'], ['t:Two options.', 'See'], ['t:Two options.', 'See', 'c:let a = 1'], ['t:Two options.', 'See', 'c:let a = 1', 'Done']]));
    const plain = (await request(gw, { body: chat('deepseek-r1') })).json.choices[0].message;
    assert.equal(plain.reasoning_content, 'Two options.');
    assert.equal(plain.content, 'See\n\nlet a = 1\n\nDone');
    const { chunks, text } = readChatStream((await request(gw, { body: chat('deepseek-r1', 'x', { stream: true }) })).bytes);
    assert.equal(text, plain.content);
    assert.equal(chunks.map((c) => c.choices[0].delta.reasoning_content ?? '').join(''), 'Two options.');
});

scenario('an answer in packets of one byte, escaped, with a separator at its end', async (t) => {
    const { fake, sdk } = await pair(t, { fake: { split: 1 } });
    for (const escaped of [false, true]) {
        fake.always(say.answer({ thinking: ['é'], pieces: ['世›', '🌍'], last: true, escaped }));
        const answer = await sdk.chat.completions.create({ model: 'o1', messages: ask('x') });
        assert.equal(answer.choices[0].message.content, '世›🌍');
        assert.equal(answer.choices[0].message.reasoning_content, 'é');
    }
});

scenario('what the platform has not is refused before it is asked', async (t) => {
    const { fake, gw } = await pair(t);
    const picture = [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'https://example.com/p.png' } }] }];
    const tools = [{ type: 'function', function: { name: 'f', parameters: {} } }];
    for (const [body, param] of [[{ model: 'o1', messages: picture }, 'messages[0].content'], [chat('o1', 'x', { tools }), 'tools'], [chat('o1', 'x', { n: 2 }), 'n']]) {
        const answer = await request(gw, { body });
        assert.equal(answer.status, 400, answer.text);
        assert.equal(answer.error.param, param);
    }
    assert.equal(fake.chats.length, 0);
});

scenario('the client leaves: the platform is told at once', async (t) => {
    const { fake, gw } = await pair(t);
    fake.always(say.hang());
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('o1', 'x', { stream: true })));
    assert.equal((await raw.head()).status, 200);
    const left = performance.now();
    raw.close();
    await until(() => fake.chats[0]?.isGone, 'the chat to be given up');
    assert.ok(fake.chats[0].goneAt - left < 1000);
    await until(async () => (await credentials(gw)).every((c) => c.inflight === 0 && c.state === 'ok'), 'the credential to be free');
});

/* ---- failures ---- */

const concurrent = { error: 'Too many concurrent requests', message: 'You have reached your maximum concurrent request limit. Please try again later.' };
const used = { error: 'Usage limit exceeded', message: 'You have reached your Kilo Code usage limit. Please upgrade.' };
const bearer = { detail: 'Bearer authentication is needed' };

scenario('each refusal: status, class, what becomes of the account', async (t) => {
    for (const [what, behave, status, code, state] of [
        ['concurrency', say.status(429, concurrent), 429, 'rate_limit_exceeded', 'cooling'],
        ['usage', say.status(429, used), 429, 'insufficient_quota', 'exhausted'],
        ['refused token', say.status(401, { error: 'Invalid token' }), 502, 'upstream_auth', 'needs_login'],
        ['down', say.status(503, { error: 'Service Unavailable', message: 'The service is temporarily unavailable. Please try again later.' }), 502, 'upstream_error', 'ok'],
        ['5xx', say.status(500, 'x', {}), 502, 'upstream_error', 'ok'],
        ['field', say.status(422, { detail: [{ loc: ['body', 'model'], msg: 'unknown model' }] }), 400, null, 'ok'],
        ['challenge', say.challenge(), 503, 'verification_required', 'verify'],
        ['challenge, 200', say.challenge(200), 503, 'verification_required', 'verify'],
        ['bearer', say.status(401, bearer), 400, null, 'ok'],
        ['no text', say.snapshots([[]]), 502, 'upstream_error', 'ok'],
        ['cut at once', say.cut([]), 502, 'upstream_error', 'ok'],
        ['error within', say.status(200, concurrent), 429, 'rate_limit_exceeded', 'cooling'],
    ]) {
        const { fake, gw } = await pair(t, { fake: { accounts: ['one'] }, config: { retry: { retries: 0, max_wait: '2s' } } });
        assert.equal((await request(gw, { body: chat('o1') })).status, 200);
        fake.always(behave);
        const answer = await request(gw, { body: chat('o1', 'x', { stream: true }) });
        assert.equal(answer.status, status, `${what}: ${answer.text}`);
        assert.equal(answer.error.code, code, `${what}: ${answer.text}`);
        if (what === 'field') assert.match(answer.error.message, /unknown model/);
        if (what === 'bearer') assert.match(answer.error.message, /Bearer authentication is needed/);
        const [account] = await credentials(gw);
        assert.equal(account.state, state, what);
        if (what === 'concurrency') assert.ok(Math.abs(Date.parse(account.until) - Date.now() - 600_000) < 5000, account.until);
        if (what === 'usage') assert.match(account.until, /^\d{4}-\d\d-01T00:00:0/);
        const renewed = what === 'refused token';
        assert.equal(fake.tokens.length, renewed ? 2 : 1, `${what}: the token is renewed once`);
        assert.equal(fake.chats.length, renewed ? 3 : 2, what);
        assert.ok(!gw.output.includes(fake.credentials[0]));
    }
});

scenario('the cooldown is a setting', async (t) => {
    const { fake, gw } = await pair(t, { fake: { accounts: ['one'] }, provider: { cooldown: '30s' } });
    fake.always(say.status(429, concurrent));
    const answer = await request(gw, { body: chat('o1') });
    assert.equal(answer.status, 429, answer.text);
    assert.ok(Number(answer.headers['retry-after']) <= 30);
});

scenario('the other account answers', async (t) => {
    for (const behave of [say.status(429, concurrent), say.status(429, used), say.status(500, 'x'), say.challenge(), say.cut([])]) {
        const { fake, gw } = await pair(t);
        await allAre(gw, 'ok');
        fake.next(behave);
        const answer = await request(gw, { body: chat('o1', 'x', { stream: true }) });
        assert.equal(readChatStream(answer.bytes).text, 'Blue', answer.text);
        assert.equal(answer.headers['x-chatmux-attempts'], '2');
        assert.notEqual(fake.chats[0].account, fake.chats[1].account);
    }
});

scenario('an answer that ends in the middle is no whole answer', async (t) => {
    const { fake, gw } = await pair(t);
    fake.always(say.cut(['half ']));
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('o1', 'x', { stream: true })));
    assert.equal((await raw.head()).status, 200);
    const { bytes, clean } = await raw.drainStream();
    const got = readChatStream(bytes);
    assert.equal(got.text, 'half ');
    assert.ok(got.error);
    assert.equal(clean, false);
    assert.equal((await request(gw, { body: chat('o1') })).status, 502);
});

/* ---- tokens ---- */

scenario('accounts get their tokens at the start, not too many at once, and keep them over a restart', async (t) => {
    const accounts = Array.from({ length: 40 }, (_, i) => `a${i}`);
    const { fake, gw } = await pair(t, { fake: { accounts } });
    fake.tokenDelayMs = 50;
    await allAre(gw, 'ok');
    assert.equal(fake.tokens.length, 40);
    assert.ok(fake.tokensMost <= 16, `${fake.tokensMost} token calls at once`);
    await gw.restart();
    for (let i = 0; i < 5; i++) assert.equal((await request(gw, { body: chat('o1') })).status, 200);
    assert.equal(fake.tokens.length, 40, 'stored tokens are used');
});

scenario('a token is renewed ahead of its end, while requests go on', async (t) => {
    const { fake, gw } = await pair(t, { fake: { accounts: ['one'], lifeS: 10 } });
    await allAre(gw, 'ok');
    const first = [...fake.accounts[0].access.keys()];
    await until(() => fake.tokens.length >= 2, 'half of its ten seconds to be over', 8000);
    assert.equal((await request(gw, { body: chat('o1') })).status, 200);
    await until(async () => {
        await request(gw, { body: chat('o1') });
        return !first.includes(fake.chats.at(-1).headers.auth);
    }, 'the new token to be used');
    assert.ok(fake.chats.every((rec) => !rec.unknownToken));
});

scenario('fifty requests that find the token refused: one renewal, and all are answered', async (t) => {
    const { fake, gw } = await pair(t, { fake: { accounts: ['one'], cap: 100 }, provider: { max_inflight: 100 } });
    assert.equal((await request(gw, { body: chat('o1') })).status, 200);
    fake.expire();
    fake.tokenDelayMs = 300;
    const answers = await Promise.all(Array.from({ length: 50 }, () => request(gw, { body: chat('o1') })));
    for (const answer of answers) assert.equal(answer.status, 200, answer.text);
    assert.equal(fake.tokens.length, 2, 'one at the start, one for all of them');
});

scenario('a refresh token that is refused waits for the operator, others serve', async (t) => {
    const { fake, gw } = await pair(t, { fake: { accounts: ['one', 'two'], strict: false }, provider: { credentials: [refreshToken('unknown'), refreshToken('one')] } });
    await until(async () => (await credentials(gw)).map((c) => c.state).sort().join() === 'needs_login,ok', 'one to be ok');
    for (let i = 0; i < 3; i++) assert.equal((await request(gw, { body: chat('o1') })).status, 200);
    assert.equal(fake.tokens.length, 2);
    const bad = (await credentials(gw)).find((c) => c.state === 'needs_login');
    assert.equal(bad.reason, 'invalid_credential');
    assert.match(gw.output, /refuses this refresh token: INVALID_REFRESH_TOKEN/);
    assert.ok(!gw.output.includes(refreshToken('unknown')));
});

scenario('an operator’s check makes a token, and tells what is wrong with an account', async (t) => {
    const { fake, gw } = await pair(t, { fake: { accounts: ['one', 'two'], strict: false }, provider: { credentials: [refreshToken('unknown'), refreshToken('one')] } });
    await until(async () => (await credentials(gw)).map((c) => c.state).sort().join() === 'needs_login,ok', 'one to be ok');
    const made = fake.tokens.length;
    const check = async (state) => {
        const { id } = (await credentials(gw)).find((c) => c.state === state);
        return (await request(gw, { method: 'POST', path: `/admin/api/credentials/${id}/check`, key: ADMIN })).json;
    };
    const good = await check('ok');
    assert.deepEqual([good.ok, good.state], [true, 'ok'], good.message);
    const bad = await check('needs_login');
    assert.equal(bad.ok, false);
    assert.match(bad.message, /INVALID_REFRESH_TOKEN/);
    assert.equal(fake.tokens.length, made + 2);
    assert.equal((await request(gw, { body: chat('o1') })).status, 200);
});

scenario('a token service that is down: the old token goes on', async (t) => {
    const { fake, gw } = await pair(t, { fake: { accounts: ['one'], lifeS: 10 } });
    await allAre(gw, 'ok');
    fake.tokenInOrder.push(...Array.from({ length: 5 }, () => say.status(503, 'down')));
    await until(() => fake.tokens.length >= 2, 'a renewal to be tried', 8000);
    assert.equal((await request(gw, { body: chat('o1') })).status, 200);
    assert.equal((await credentials(gw))[0].state, 'ok');
});

scenario('a platform that quotes what it was sent is not passed on', async (t) => {
    const { fake, gw } = await pair(t, { fake: { accounts: ['one'], rotate: true } });
    await allAre(gw, 'ok');
    const [account] = fake.accounts;
    for (const quote of [() => [...account.access.keys()].at(-1), () => account.refresh, () => account.first, () => [...account.access.keys()][0]]) {
        const secret = quote();
        fake.always(say.status(422, { detail: [{ loc: ['header', 'auth'], msg: `what is ${secret}?` }] }));
        const answer = await request(gw, { body: chat('o1') });
        assert.equal(answer.status, 400);
        assert.match(answer.error.message, /quotes a credential: it is not shown/);
        assert.ok(!gw.output.includes(secret) && !answer.text.includes(secret));
        fake.always(say.answer());
        assert.equal((await request(gw, { body: chat('o1') })).status, 200);
        fake.expire(); // so that there is another token in the next round
        assert.equal((await request(gw, { body: chat('o1') })).status, 200);
    }
    const log = (await request(gw, { path: '/admin/api/requests', key: ADMIN })).text;
    assert.ok(![...account.access.keys(), account.refresh, account.first].some((s) => log.includes(s)));
});

/* ---- the Firebase key ---- */

scenario('without the Firebase key it serves, and says what is missing', async (t) => {
    const { fake, gw } = await pair(t, { provider: { 'x.firebase_key': null }, config: { 'provider demo': { type: 'demo' } } });
    assert.deepEqual((await credentials(gw)).filter((c) => c.provider === 'alex').map((c) => [c.state, c.reason]), [['needs_login', 'config'], ['needs_login', 'config']]);
    assert.equal((await request(gw, { body: chat('demo') })).status, 200);
    const refused = await request(gw, { body: chat('o1') });
    assert.equal(refused.status, 503, refused.text);
    assert.match(refused.error.message, /x\.firebase_key/);
    assert.match(refused.error.message, /AS_FIREBASE_KEY/);
    assert.equal(refused.headers['x-should-retry'], 'false');
    assert.equal(fake.requests.length, 0);

    gw.writeConfig({ auth: { admin_secret: ADMIN }, 'provider alex': provider(fake) });
    gw.signal('SIGHUP');
    await allAre(gw, 'ok');
    assert.equal((await request(gw, { body: chat('o1') })).status, 200);
});

scenario('the Firebase key from its variable', async (t) => {
    const { gw } = await pair(t, { provider: { 'x.firebase_key': null }, env: { AS_FIREBASE_KEY: FIREBASE_KEY } });
    assert.equal((await request(gw, { body: chat('o1') })).status, 200);
});

scenario('a Firebase key that the platform refuses', async (t) => {
    const { fake, gw } = await pair(t, { fake: { strict: false }, provider: { 'x.firebase_key': 'AIzaWrong' } });
    await allAre(gw, 'needs_login');
    const refused = await request(gw, { body: chat('o1') });
    assert.equal(refused.status, 503, refused.text);
    assert.match(refused.error.message, /refuses x\.firebase_key: "API key not valid/);
    const tried = fake.tokens.length;
    gw.writeConfig({ auth: { admin_secret: ADMIN }, 'provider alex': provider(fake) });
    gw.signal('SIGHUP');
    await allAre(gw, 'ok');
    assert.ok(fake.tokens.length <= tried + 2);
});

/* ---- a month ---- */

scenario('a month’s chats are counted, over kill -9, and then the account rests until the 1st', async (t) => {
    const { fake, gw } = await pair(t, { fake: { accounts: ['one', 'two'], perMonth: 5 }, provider: { monthly_limit: 5 }, config: { retry: { retries: 0, max_wait: '1s' } } });
    await allAre(gw, 'ok');
    for (let i = 0; i < 4; i++) assert.equal((await request(gw, { body: chat('o1') })).status, 200);
    await sleep(600); // counters are written in groups
    await gw.restart({ how: 'SIGKILL' });
    assert.equal((await credentials(gw)).reduce((sum, c) => sum + c.month_requests, 0), 4);
    const rest = await Promise.all(Array.from({ length: 10 }, () => request(gw, { body: chat('o1') })));
    assert.equal(rest.filter((a) => a.status === 200).length, 6);
    const refused = rest.find((a) => a.status !== 200);
    assert.equal(refused.status, 429, refused.text);
    assert.ok(Number(refused.headers['retry-after']) > 0, 'until the 1st');
    const now = new Date();
    const first = Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1, 1);
    for (const c of await credentials(gw)) {
        assert.deepEqual([c.state, c.reason, c.month_requests, c.monthly_limit], ['exhausted', 'monthly_limit', 5, 5]);
        assert.ok(Math.abs(Date.parse(c.until) - first) < 2000, c.until);
    }
    await gw.restart();
    await allAre(gw, 'exhausted');
    assert.equal((await request(gw, { body: chat('o1') })).status, 429);
    assert.deepEqual(fake.accounts.map((a) => a.chats), [5, 5]);
});

/* ---- load ---- */

scenario('300 at once over 20 accounts: caps are kept, the rest waits or is told when to come again', { timeout: 120_000 }, async (t) => {
    const accounts = Array.from({ length: 20 }, (_, i) => `a${i}`);
    const { fake, gw } = await pair(t, { fake: { accounts, cap: 2 }, config: { retry: { retries: 0, max_wait: sanitized ? '6s' : '3s' } } });
    await allAre(gw, 'ok');
    fake.always(say.answer({ pieces: ['a', 'b'], gapMs: 300 })); // 40 at once take 600 ms
    const answers = await Promise.all(Array.from({ length: 300 }, (_, i) => request(gw, { body: chat('o1', `question ${i}`, { stream: i % 2 === 0 }) })));
    const served = answers.filter((a) => a.status === 200);
    assert.ok(served.length >= 120, `${served.length} were served`);
    for (const a of served) assert.equal(a.headers['content-type'].startsWith('text/event-stream') ? readChatStream(a.bytes).text : a.json.choices[0].message.content, 'ab');
    for (const a of answers.filter((a) => a.status !== 200)) {
        assert.equal(a.status, 429, a.text);
        assert.ok(Number(a.headers['retry-after']) >= 1, a.text);
    }
    assert.equal(fake.chats.length, served.length, 'nobody was asked in vain');
    for (const a of fake.accounts) assert.equal(a.most, 2, `${a.seed} had ${a.most} at once`);
    assert.equal(fake.tokens.length, 20);
    t.diagnostic(`${served.length} served, ${300 - served.length} told to come again`);
});
