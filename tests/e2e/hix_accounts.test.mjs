// hix through the gateway: conversations, files, chats that go, credit, sessions, many at once.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import OpenAI from 'openai';
import { atEnd, chat, CLIENT_KEY, request, sanitized, scenario, startGateway, until } from '../lib/gateway.mjs';
import { connect, rawChat, readChatStream } from '../lib/raw.mjs';
import { say, sessionToken, startFakeHix } from '../lib/fake_hix.mjs';

const SECRET = 'adm-secret-0815-4711';
const CREATE = '/api/trpc/hixChat.createChat';
const DELETE = '/api/trpc/hixChat.deleteChat';
const USAGE = '/api/trpc/hixChat.getUsedBotList,subLog.getSubLog,subUsage.getSubUsage';
const CHAT = '/api/hix/chat';

async function pair(t, { fake: fakeOptions, provider, config } = {}) {
    const fake = await startFakeHix(t, fakeOptions);
    const gw = await startGateway(t, {
        config: {
            auth: { keys: [CLIENT_KEY, 'sk-test-of-somebody-else'], admin_secret: SECRET },
            retry: { retries: 0 },
            'provider hix': { type: 'hix', base_url: fake.base, credentials: [...fake.sessions], ...provider },
            ...config,
        },
    });
    return { fake, gw, sdk: new OpenAI({ baseURL: gw.base, apiKey: CLIENT_KEY, maxRetries: 0 }) };
}

const user = (content) => ({ role: 'user', content });
const assistant = (content) => ({ role: 'assistant', content });
const admin = async (gw, method, path) => (await request(gw, { path: `/admin/api${path}`, method, key: SECRET })).json;
const credentials = async (gw) => (await admin(gw, 'GET', '/credentials')).data;
const sessionsOf = (fake, path) => fake.of(path).map((rec) => rec.session);

// ---- conversations and files ----------------------------------------------------------------------------------

scenario('a conversation goes on in its chat, for its own client only', async (t) => {
    const { fake, gw, sdk } = await pair(t);
    fake.always(say.answer({ pieces: ['Uno', '.'] }));
    const messages = [{ role: 'system', content: 'SPEAK-ITALIAN' }, user('FIRST')];
    const first = await sdk.chat.completions.create({ model: 'deepseek-v3', messages });
    messages.push(assistant(first.choices[0].message.content), user('SECOND'));
    const stream = await sdk.chat.completions.create({ model: 'deepseek-v3', messages, stream: true });
    for await (const chunk of stream) assert.ok(chunk.choices.length <= 1);
    messages.push(assistant('Uno.'), user('THIRD'));
    await sdk.chat.completions.create({ model: 'deepseek-v3', messages });
    const asked = fake.of(CHAT).map((rec) => rec.json);
    assert.equal(fake.of(CREATE).length, 1);
    assert.deepEqual(asked.map((a) => a.question), ['system: SPEAK-ITALIAN\n\nuser: FIRST', 'SECOND', 'THIRD']);
    assert.equal(new Set(asked.map((a) => a.chatId)).size, 1);

    const other = await request(gw, { body: { model: 'deepseek-v3', messages }, key: 'sk-test-of-somebody-else' });
    assert.equal(other.status, 200);
    assert.notEqual(fake.of(CHAT).at(-1).json.chatId, asked[0].chatId, 'another client goes on in this one’s chat');
    for (const part of ['SPEAK-ITALIAN', 'FIRST', 'SECOND', 'THIRD']) assert.ok(fake.of(CHAT).at(-1).json.question.includes(part));
});

scenario('a chat that has gone is begun anew with all that was said', async (t) => {
    const { fake, sdk } = await pair(t);
    await sdk.chat.completions.create({ model: 'deepseek-v3', messages: [user('FIRST')] });
    fake.chats.clear();
    const again = await sdk.chat.completions.create({ model: 'deepseek-v3', messages: [user('FIRST'), assistant('Blue'), user('SECOND')] }).withResponse();
    assert.equal(again.response.headers.get('x-chatmux-attempts'), '1', 'the same account');
    assert.equal(again.data.choices[0].message.content, 'Blue');
    assert.equal(fake.of(CHAT).at(-1).json.question, 'user: FIRST\n\nassistant: Blue\n\nuser: SECOND');
    fake.refusals.length = 0; // the 403 was the point
});

scenario('pictures and files are uploaded', async (t) => {
    const { fake, sdk } = await pair(t);
    const png = Buffer.from('89504e470d0a1a0a0000000d49484452', 'hex');
    for (const [part, type, bytes] of [
        [{ type: 'image_url', image_url: { url: `data:image/png;base64,${png.toString('base64')}` } }, 'image/png', png],
        [{ type: 'file', file: { filename: 'a.txt', file_data: `data:text/plain;base64,${Buffer.from('grün 世界').toString('base64')}` } }, 'text/plain', Buffer.from('grün 世界')],
    ]) {
        await sdk.chat.completions.create({ model: 'gpt-4o', messages: [user([{ type: 'text', text: `What is it? ${type}` }, part])] });
        const file = [...fake.files.values()].at(-1);
        assert.equal(file.type, type);
        assert.deepEqual(file.bytes, bytes);
        const { json } = fake.of(CHAT).at(-1);
        assert.equal(json.fileUrl, `${fake.base}/store/${[...fake.files.keys()].at(-1)}`);
        assert.equal(json.question, `What is it? ${type}`);
    }
});

scenario('a picture behind an address is fetched without anything of ours, where that is allowed', async (t) => {
    const png = Buffer.from('89504e470d0a1a0a0000000d49484452', 'hex');
    const seen = [];
    const pictures = http.createServer((req, res) => {
        seen.push(req.headers);
        res.writeHead(200, { 'content-type': 'image/png' });
        res.end(png);
    });
    await new Promise((done) => pictures.listen(0, '127.0.0.1', done));
    atEnd(t, () => new Promise((done) => pictures.close(done) && pictures.closeAllConnections()));
    const ask = { model: 'gpt-4o', messages: [user([{ type: 'image_url', image_url: { url: `http://127.0.0.1:${pictures.address().port}/a.png` } }])] };
    for (const allowed of ['yes', 'no']) {
        const { fake, gw } = await pair(t, { provider: { allow_private_fetch: allowed } });
        const answer = await request(gw, { body: ask });
        assert.equal(answer.status, allowed === 'yes' ? 200 : 400, answer.text);
        if (allowed === 'yes') assert.deepEqual([...fake.files.values()][0].bytes, png);
        else assert.equal(fake.requests.length, 0);
    }
    assert.equal(seen.length, 1);
    for (const name of ['cookie', 'authorization', 'origin', 'referer']) assert.ok(!(name in seen[0]), name);
});

scenario('-news and -academic', async (t) => {
    const { fake, sdk } = await pair(t);
    for (const kind of ['news', 'academic']) {
        const answer = await sdk.chat.completions.create({ model: `gpt-4o-${kind}`, messages: [user('x')] });
        assert.equal(answer.choices[0].message.content, 'Blue');
        assert.equal(fake.of(CHAT).at(-1).json.searchType, kind);
    }
});

scenario('an answer that breaks off is asked for its rest', async (t) => {
    const { fake, sdk } = await pair(t);
    fake.next(say.broken(['Bl', 'ue ', '世界']));
    const answer = await sdk.chat.completions.stream({ model: 'deepseek-v3', messages: [user('x')] }).finalChatCompletion();
    assert.equal(answer.choices[0].message.content, 'Blue 世界');
    assert.equal(fake.of('/api/hix/agentEvent').length, 1);
});

// ---- the catalogue of errors ----------------------------------------------------------------------------------

scenario('each error of the first call: the other account answers, or the client is told', async (t) => {
    for (const [what, behave, status, code] of [
        ['quota', say.noCredit(), 200],
        ['payment', say.trpc(-32002, 'PAYMENT_REQUIRED', 402), 200],
        ['unauthorized', say.trpc(-32001, 'UNAUTHORIZED', 401), 200],
        ['too many', say.trpc(-32029, 'TOO_MANY_REQUESTS', 429), 200],
        ['not login', say.status(200, { status: -5, message: 'not login', data: {} }), 200],
        ['bot gone', say.trpc(-32004, 'NOT_FOUND', 404), 200],
        ['internal', say.trpc(-32603, 'INTERNAL_SERVER_ERROR', 500), 200],
        ['forbidden', say.status(403, 'Forbidden', { 'content-type': 'text/html' }), 200],
        ['challenge', say.challenge(), 503, 'verification_required'],
        ['bad request', say.trpc(-32600, 'BAD_REQUEST', 400), 400, null],
    ]) {
        const { fake, gw } = await pair(t);
        let first = null;
        fake.onCreate((session) => ((first ??= session) === session ? behave : null));
        const answer = await request(gw, { body: chat('deepseek-v3', 'x', { stream: true }) });
        assert.equal(answer.status, status, `${what}: ${answer.text}`);
        if (status === 200) {
            assert.equal(readChatStream(answer.bytes).text, 'Blue', what);
            assert.notEqual(fake.of(CHAT)[0].session, first, what);
        } else {
            assert.equal(answer.error.code, code, what);
            assert.equal(fake.of(CREATE).length, 1, what);
        }
    }
});

scenario('each error of the second call', async (t) => {
    for (const [what, behave, status, code] of [
        ['rate limit', say.status(429, { code: 'RATE_LIMIT_EXCEEDED' }), 200],
        ['credits', say.status(402, { code: 'CREDITS_EXHAUSTED' }), 200],
        ['credits, in the stream', say.frame({ action: 'credit_exhausted', message: 'none' }, { event: 'StepOutput' }), 200],
        ['network', say.status(503, { code: 'NETWORK_ERROR' }), 200],
        ['sub agent', say.status(500, { code: 'SUB_AGENT_FAILURE' }), 200],
        ['a chat that is not ours', say.status(403, { message: 'no' }), 200],
        ['challenge', say.challenge(), 503, 'verification_required'],
        ['cut', say.cut([]), 200],
        ['filter', say.status(400, { code: 'CONTENT_FILTERED' }), 400, 'content_filter'],
        ['filter, in the stream', say.frame({ code: 'CONTENT_FILTERED' }), 400, 'content_filter'],
        ['parameter', say.status(400, { code: 'MISSING_PARAMETER' }), 400, null],
    ]) {
        const { fake, gw } = await pair(t);
        fake.next(behave);
        const answer = await request(gw, { body: chat('deepseek-v3') });
        assert.equal(answer.status, status, `${what}: ${answer.text}`);
        const sessions = sessionsOf(fake, CHAT);
        assert.equal(sessions.length, status === 200 ? 2 : 1, what);
        if (status !== 200) assert.equal(answer.error.code, code, what);
        else assert.notEqual(sessions[0], sessions[1], what);
    }
});

// ---- chats that go --------------------------------------------------------------------------------------------

scenario('no conversation is left when chats are to be deleted', async (t) => {
    const { fake, gw, sdk } = await pair(t, { provider: { 'x.delete_chat': 'yes' } });
    const answers = [say.answer(), say.status(429, { code: 'RATE_LIMIT_EXCEEDED' }), say.status(400, { code: 'CONTENT_FILTERED' }), say.cut([]), say.frame({ code: 'CONTENT_FILTERED' }, { pieces: ['half'] })];
    for (const behave of answers) {
        fake.next(behave);
        await request(gw, { body: chat('deepseek-v3') });
        for (const { id } of await credentials(gw)) await admin(gw, 'POST', `/credentials/${id}/reset`);
    }
    const messages = [user('FIRST'), assistant('Blue'), user('SECOND')];
    await sdk.chat.completions.stream({ model: 'deepseek-v3', messages }).finalChatCompletion();
    assert.equal(fake.of(CHAT).at(-1).json.question, 'user: FIRST\n\nassistant: Blue\n\nuser: SECOND');

    // clients that leave: while the chat is being made, before the answer begins, in the middle of it
    fake.createDelayMs = 300;
    const early = await connect(t, gw);
    early.send(rawChat(chat('deepseek-v3', 'x', { stream: true })));
    const { made } = fake;
    await until(() => fake.of(CREATE).length > made, 'a chat to be asked for');
    early.close();
    await until(() => fake.made > made, 'the chat to be made');
    await until(() => fake.chats.size === 0, 'the chat to be deleted');
    fake.createDelayMs = 0;
    for (const behave of [say.hang(), say.lockstep(['one', 'two'])]) {
        const asked = fake.of(CHAT).length;
        fake.next(behave);
        const raw = await connect(t, gw);
        raw.send(rawChat(chat('deepseek-v3', 'x', { stream: true })));
        const rec = await until(() => fake.of(CHAT)[asked], 'the question');
        await sleep(50);
        raw.close();
        await until(() => rec.isGone, 'the stream to be stopped', 1500);
    }
    await until(() => fake.chats.size === 0, 'the last chat to be deleted');
    assert.equal(fake.of(DELETE).length, fake.made);
    assert.equal(fake.made, fake.of(CREATE).length);
});

scenario('a chat that could not be deleted goes with the next one', async (t) => {
    const { fake, gw } = await pair(t, { fake: { sessions: [sessionToken('only')] }, provider: { 'x.delete_chat': 'yes' } });
    fake.onDelete = () => say.status(500, 'oops');
    assert.equal((await request(gw, { body: chat('deepseek-v3') })).status, 200);
    await until(() => fake.of(DELETE).length === 1, 'deleting to be tried');
    fake.onDelete = null;
    assert.equal((await request(gw, { body: chat('deepseek-v3') })).status, 200);
    await until(() => fake.chats.size === 0, 'both to be deleted');
    assert.equal(fake.of(DELETE).length, 3);
});

scenario('what a process that was killed left behind goes with a later answer', async (t) => {
    const { fake, gw } = await pair(t, { fake: { sessions: [sessionToken('only')] }, provider: { 'x.delete_chat': 'yes' } });
    fake.next(say.hang());
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('deepseek-v3', 'x', { stream: true })));
    await until(() => fake.of(CHAT).length === 1, 'the question');
    await sleep(400); // the store writes in groups, every 250 ms
    await gw.restart({ how: 'SIGKILL' });
    assert.equal(fake.chats.size, 1);
    assert.equal((await request(gw, { body: chat('deepseek-v3') })).status, 200);
    await until(() => fake.chats.size === 0, 'both chats to be deleted');
});

scenario('of two chats that are deleted at once the one that is refused is not forgotten', async (t) => {
    const { fake, gw } = await pair(t, { fake: { sessions: [sessionToken('only')] }, provider: { 'x.delete_chat': 'yes' } });
    const held = [];
    fake.onDelete = (id) => (rec) => held.push({ id, rec });
    await Promise.all([1, 2].map(() => request(gw, { body: chat('deepseek-v3') })));
    await until(() => held.length === 2, 'both to be tried');
    fake.onDelete = null;
    say.status(500, 'oops')(held[0].rec);
    await sleep(100);
    fake.chats.delete(held[1].id);
    say.status(200, [{ result: { data: { json: null } } }])(held[1].rec);
    await sleep(100);
    assert.equal((await request(gw, { body: chat('deepseek-v3') })).status, 200);
    await until(() => fake.chats.size === 0, 'all to be deleted', 2000);
});

// ---- credit ---------------------------------------------------------------------------------------------------

const purse = (standard, advanced = 0, active = false, ends = null) => ({ standard, advanced, active, ends });

scenario('who cannot pay for a model is not asked for it again, and serves cheaper ones', async (t) => {
    const [poor, rich] = [sessionToken('poor'), sessionToken('rich')];
    const { fake, gw } = await pair(t, { fake: { sessions: [poor, rich] } });
    fake.credit.set(poor, purse(12));
    fake.credit.set(rich, purse(10_000));
    for (let i = 0; i < 8; i++) {
        const answer = await request(gw, { body: chat('gpt-4o', `question ${i}`) });
        assert.equal(answer.status, 200, answer.text);
    }
    assert.ok(fake.of(CREATE).filter((rec) => rec.session === poor).length <= 1, 'the poor account was tried again');
    assert.equal(fake.credit.get(poor).standard, 12);
    assert.equal(fake.credit.get(rich).standard, 10_000 - 8 * 30);
    const created = fake.of(CREATE).length;
    for (let i = 0; i < 4; i++) await request(gw, { body: chat('deepseek-v3', `cheap ${i}`) });
    assert.equal(new Set(sessionsOf(fake, CREATE).slice(created)).size, 2, 'both serve the cheap model');
    for (const c of await credentials(gw)) assert.equal(c.state, 'ok');
});

scenario('credit that is known is not overdrawn, and survives a restart', async (t) => {
    const [a, b] = [sessionToken('first'), sessionToken('second')];
    const { fake, gw } = await pair(t, { fake: { sessions: [a, b] } });
    fake.credit.set(a, purse(95));
    fake.credit.set(b, purse(35));
    for (const { id } of await credentials(gw)) assert.equal((await admin(gw, 'POST', `/credentials/${id}/check`)).ok, true);
    const told = (await credentials(gw)).map((c) => c.quota);
    assert.deepEqual(told, [{ credit: 95, advanced_credit: 0, subscribed: false }, { credit: 35, advanced_credit: 0, subscribed: false }]);
    await gw.restart();
    const explained = async (model) => (await request(gw, { path: '/admin/api/explain', body: { model }, key: SECRET })).json.targets[0];
    for (let i = 0; i < 5; i++) assert.equal((await explained('gpt-4o')).excluded, null, 'explaining spends nothing');
    assert.match((await explained('grok-2')).excluded, /100 credits/);
    const answers = await Promise.all(Array.from({ length: 8 }, (_, i) => request(gw, { body: chat('gpt-4o', `question ${i}`) })));
    const good = answers.filter((r) => r.status === 200);
    const refused = answers.filter((r) => r.status === 429);
    assert.deepEqual([good.length, refused.length], [4, 4], 'three from one account, one from the other');
    for (const r of refused) assert.equal(r.error.code, 'insufficient_quota', r.text);
    assert.match(refused[0].error.message, /30 credits/);
    assert.equal(fake.of(CREATE).length, 4, 'nothing was asked that could not be paid');
    assert.deepEqual([fake.credit.get(a).standard, fake.credit.get(b).standard], [5, 5]);
});

scenario('advanced credit needs a subscription', async (t) => {
    const [without, subscribed] = [sessionToken('without'), sessionToken('subscribed')];
    const ends = new Date(Date.now() + 3_600_000).toISOString();
    const { fake, gw } = await pair(t, { fake: { sessions: [without, subscribed] } });
    fake.credit.set(without, purse(10_000, 10_000, false));
    fake.credit.set(subscribed, purse(5, 60, true, ends));
    for (let i = 0; i < 3; i++) assert.equal((await request(gw, { body: chat('claude-3-7-sonnet', `q ${i}`) })).status, 200);
    assert.deepEqual(new Set(sessionsOf(fake, CHAT)), new Set([subscribed]));
    assert.equal(fake.credit.get(subscribed).advanced, 0);
    const spent = await request(gw, { body: chat('claude-3-7-sonnet', 'one more') });
    assert.equal(spent.status, 429);
    assert.equal(spent.error.code, 'insufficient_quota');
    assert.equal((await request(gw, { body: chat('deepseek-v3') })).status, 200);
});

scenario('the old routes show the credit, a check tells a cookie that is over', async (t) => {
    const [good, stale] = [sessionToken('good'), sessionToken('stale')];
    const { fake, gw } = await pair(t, { fake: { sessions: [good] }, provider: { credentials: [good, stale] } });
    fake.credit.set(good, purse(77, 5, true));
    const [first, second] = await credentials(gw);
    assert.equal((await admin(gw, 'POST', `/credentials/${first.id}/check`)).ok, true);
    const checked = await admin(gw, 'POST', `/credentials/${second.id}/check`);
    assert.deepEqual([checked.ok, checked.state], [false, 'refreshing'].includes(checked.state) ? [false, 'refreshing'] : [false, 'needs_login']);
    await until(async () => (await credentials(gw))[1].state === 'needs_login', 'the stale cookie to need a login');
    const rows = (await request(gw, { path: '/api/cookie/all', key: SECRET })).json.data;
    assert.deepEqual(rows.map((r) => [r.credit, r.advancedCredit]), [[77, 5], [0, 0]]);
    assert.equal(fake.of(CREATE).length, 0, 'a check costs nothing');
    assert.equal((await request(gw, { body: chat('gpt-4o') })).status, 200);
    const credit = async () => (await request(gw, { path: '/api/cookie/all', key: SECRET })).json.data[0].credit;
    await until(async () => (await credit()) === 47, 'the credit to be what is left');
    assert.ok(!gw.output.includes(stale) && !gw.output.includes(good));
});

scenario('credit is read after an answer, now and then', async (t) => {
    for (const [every, reads] of [['10m', 1], ['0s', 3]]) {
        const { fake, gw } = await pair(t, { fake: { sessions: [sessionToken('only')] }, provider: { 'x.credit_every': every } });
        for (let i = 0; i < 3; i++) {
            assert.equal((await request(gw, { body: chat('gpt-4o', `q ${i}`) })).status, 200);
            await until(() => fake.requests.every((rec) => rec.res.writableEnded), 'all to be answered');
        }
        await until(() => fake.of(USAGE).length === reads, `${reads} readings`);
    }
});

// ---- sessions -------------------------------------------------------------------------------------------------

scenario('a session that the platform renews is used from then on, and kept', async (t) => {
    const { fake, gw } = await pair(t, { fake: { sessions: [sessionToken('only')] }, provider: { credentials: [`_ga=1; __Secure-next-auth.session-token=${sessionToken('only')}`] } });
    fake.renew = true;
    const [{ id }] = await credentials(gw);
    assert.equal((await admin(gw, 'POST', `/credentials/${id}/check`)).ok, true);
    fake.renew = false;
    const [newer] = fake.renewed.keys();
    const cookie = async () => {
        assert.equal((await request(gw, { body: chat('deepseek-v3') })).status, 200);
        return fake.of(CHAT).at(-1).headers.cookie;
    };
    const expected = `_ga=1; __Secure-next-auth.session-token=${newer}`;
    await until(async () => (await cookie()) === expected, 'the newer cookie to be used, once it is on the disk');
    await gw.restart();
    assert.equal(await cookie(), expected);
    assert.ok(!gw.output.includes(newer));
});

scenario('a refused cookie is asked about, and serves again when the session is still good', async (t) => {
    const { fake, gw } = await pair(t, { fake: { sessions: [sessionToken('only')] } });
    fake.renew = true;
    let refusals = 0;
    fake.onCreate(() => (refusals++ === 0 ? say.trpc(-32001, 'UNAUTHORIZED', 401) : null));
    const answer = await request(gw, { body: chat('deepseek-v3') });
    assert.equal(answer.status, 200, answer.text);
    assert.equal(fake.of('/api/auth/session').length, 1);
    assert.ok(fake.of(CHAT)[0].headers.cookie.includes([...fake.renewed.keys()][0]));
});

// ---- many at once ---------------------------------------------------------------------------------------------

/** Which of the eight browsers a credential seems to be. */
const browserOf = (token) => createHash('sha256').update(`__Secure-next-auth.session-token=${token}`).digest()[0] % 8;

function twoPeople() {
    const first = sessionToken('person0');
    for (let i = 1; ; i++) if (browserOf(sessionToken(`person${i}`)) !== browserOf(first)) return [first, sessionToken(`person${i}`)];
}

scenario('two accounts share nothing', async (t) => {
    const sessions = twoPeople();
    const { fake, gw } = await pair(t, { fake: { sessions }, provider: { 'x.delete_chat': 'yes' } });
    for (let round = 0; round < 3; round++) await Promise.all(Array.from({ length: 6 }, (_, i) => request(gw, { body: chat('deepseek-v3', `q ${round} ${i}`) })));
    await until(() => fake.chats.size === 0, 'all chats to be deleted');
    assert.equal(fake.agents.size, 2);
    const agents = [...fake.agents.values()].map((set) => [...set]);
    assert.deepEqual(agents.map((a) => a.length), [1, 1], 'one browser for each account');
    assert.notEqual(agents[0][0], agents[1][0]);
    const owners = [...fake.owners.values()];
    for (const session of sessions) assert.ok(owners.includes(session)); // the fake refuses a connection with two owners
    assert.equal((await request(gw, { body: chat('deepseek-v3', 'x') })).status, 200);
});

const MANY = sanitized ? 100 : 300;

scenario(`${MANY} requests at once over 20 accounts: no cap is passed, nobody is lost, no chat is left`, { timeout: 120_000 }, async (t) => {
    const sessions = Array.from({ length: 20 }, (_, i) => sessionToken(`account${String.fromCharCode(97 + i)}`));
    const { fake, sdk } = await pair(t, {
        fake: { sessions },
        provider: { max_inflight: 2, 'x.delete_chat': 'yes' },
        config: { retry: { max_wait: '60s' } },
    });
    fake.always(say.answer({ reasoning: ['hm'], pieces: ['Bl', 'ue'], gapMs: 10 }));
    const texts = await Promise.all(
        Array.from({ length: MANY }, async (_, i) => {
            const ask = { model: 'deepseek-r1', messages: [user(`question ${i}`)] };
            if (i % 2 === 0) return (await sdk.chat.completions.create(ask)).choices[0].message.content;
            return (await sdk.chat.completions.stream(ask).finalChatCompletion()).choices[0].message.content;
        }),
    );
    assert.ok(texts.every((text) => text === 'Blue'));
    assert.equal(fake.of(CHAT).length, MANY);
    assert.equal(fake.peak.size, 20, 'every account served');
    for (const [session, peak] of fake.peak) assert.ok(peak <= 2, `${session} saw ${peak} at once`);
    await until(() => fake.chats.size === 0, 'every chat to be deleted', 20_000);
    assert.equal(fake.made, MANY);
});

scenario('who cannot wait that long gets 429 with Retry-After', async (t) => {
    const { fake, gw } = await pair(t, { provider: { max_inflight: 1 }, config: { retry: { max_wait: '100ms' } } });
    fake.always(say.answer({ pieces: ['a', 'b'], gapMs: 400 }));
    const answers = await Promise.all(Array.from({ length: 30 }, (_, i) => request(gw, { body: chat('deepseek-v3', `q ${i}`) })));
    const good = answers.filter((r) => r.status === 200);
    const refused = answers.filter((r) => r.status === 429);
    assert.equal(good.length + refused.length, 30);
    assert.ok(good.length >= 2 && refused.length > 0, `${good.length} answered`);
    for (const r of refused) assert.ok(Number(r.headers['retry-after']) >= 1, r.text);
    for (const peak of fake.peak.values()) assert.equal(peak, 1);
});
