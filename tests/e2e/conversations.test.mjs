// Conversations of a platform over a restart, and those that hixai2api led: the same account, the same chat, and only what is new is asked.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { request, runCommand, makeDir, scenario, startGateway } from '../lib/gateway.mjs';
import { startFakeDeepseek, userToken } from '../lib/fake_deepseek.mjs';
import { session, startFakeGenspark } from '../lib/fake_genspark.mjs';
import { say, sessionToken, startFakeHix } from '../lib/fake_hix.mjs';
import { cookieOf, dumpOf, sqliteFile } from '../lib/hixai2api_data.mjs';

const SESSIONS = ['hixOne', 'hixTwo', 'hixThree', 'hixFour'].map(sessionToken);
const SECRET = '123456';

/** One turn: the answer's text; the platform's chat and account, and what it was asked. */
async function turn(gw, fake, messages, { key, model = 'gpt-4o' } = {}) {
    const before = fake.of('/api/hix/chat').length;
    const answer = await request(gw, { body: { model, messages }, ...(key !== undefined && { key }) });
    assert.equal(answer.status, 200, answer.text);
    const asked = fake.of('/api/hix/chat').slice(before);
    assert.equal(asked.length, 1);
    return { text: answer.json.choices[0].message.content, chat: asked[0].json.chatId, session: asked[0].session, question: asked[0].json.question };
}

const user = (content) => ({ role: 'user', content });
const assistant = (content) => ({ role: 'assistant', content });

scenario('conversations go on in their chats after a restart, each with its account', async (t) => {
    const fake = await startFakeHix(t, { sessions: SESSIONS });
    const keys = ['sk-first-client-4711', 'sk-second-client-4711'];
    const config = { retry: { retries: 0 }, auth: { keys }, 'provider hix': { type: 'hix', base_url: fake.base, credentials: SESSIONS } };
    const gw = await startGateway(t, { config: () => config });
    const talks = [];
    for (let i = 0; i < 6; i++) {
        fake.always(say.answer({ pieces: [`Colour ${i}, `, 'said aloud'] }));
        talks.push(await turn(gw, fake, [user(`WHISPERED-QUESTION ${i}`)], { key: keys[0] }));
    }
    assert.ok(new Set(talks.map((c) => c.session)).size > 1, 'they are spread over accounts');
    const made = fake.made;

    config.auth.keys = [...keys].reverse(); // which of the two is the first says nothing
    await gw.restart();
    fake.always(say.answer({ pieces: ['Green'] }));
    for (const [i, talk] of talks.entries()) {
        const history = [user(`WHISPERED-QUESTION ${i}`), assistant(talk.text), user(`and then ${i}?`)];
        if (i === 0) {
            const stranger = await turn(gw, fake, history, { key: keys[1] });
            assert.notEqual(stranger.chat, talk.chat, 'another client has the same words');
        }
        const next = await turn(gw, fake, history, { key: keys[0] });
        assert.deepEqual([next.chat, next.session, next.question], [talk.chat, talk.session, `and then ${i}?`]);
    }
    assert.equal(fake.made, made + 1);

    await sleep(300); // a group has been written
    await gw.restart({ how: 'SIGKILL' });
    const last = await turn(gw, fake, [user('WHISPERED-QUESTION 5'), assistant(talks[5].text), user('and then 5?'), assistant('Green'), user('why?')], { key: keys[0] });
    assert.deepEqual([last.chat, last.question], [talks[5].chat, 'why?']);

    const state = join(gw.dir, 'state');
    for (const name of readdirSync(state)) assert.ok(!readFileSync(join(state, name)).includes('WHISPERED'), `${name} has what was said`);
});

/** The other platforms that keep conversations: where each request went, and what it said. */
const OTHERS = [
    {
        type: 'genspark', model: 'gpt-5.2', options: { 'x.continue': 'thread' },
        start: (t) => startFakeGenspark(t, { sessions: [1, 2, 3].map(session) }), secrets: (fake) => fake.sessions,
        asks: (fake) => fake.asks.map((rec) => ({ chat: rec.project, account: rec.session, text: rec.json.messages.map((m) => m.content).join() })),
    },
    {
        type: 'deepseek', model: 'deepseek-chat', options: {},
        start: (t) => startFakeDeepseek(t, { difficulty: 2000, accounts: ['one', 'two', 'three'].map((name) => userToken(name)) }), secrets: (fake) => fake.tokens,
        asks: (fake) => fake.of('/api/v0/chat/completion').map((rec) => ({ chat: rec.json.chat_session_id, account: rec.account, text: rec.json.prompt })),
    },
];

for (const one of OTHERS)
    scenario(`conversations of ${one.type} go on after a restart, each with its account`, async (t) => {
        const fake = await one.start(t);
        const gw = await startGateway(t, { config: { retry: { retries: 0 }, [`provider ${one.type}`]: { type: one.type, base_url: fake.base, credentials: one.secrets(fake), ...one.options } } });
        const ask = async (messages) => {
            const answer = await request(gw, { body: { model: one.model, messages } });
            assert.equal(answer.status, 200, answer.text);
            const { chat, account } = one.asks(fake).at(-1);
            return { chat, account, text: answer.json.choices[0].message.content };
        };
        const talks = [];
        for (let i = 0; i < 3; i++) talks.push(await ask([user(`question ${i}`)]));
        assert.equal(new Set(talks.map((c) => c.account)).size, 3);
        await gw.restart();
        for (const [i, talk] of [...talks.entries()].reverse()) {
            const next = await ask([user(`question ${i}`), assistant(talk.text), user(`and then ${i}?`)]);
            assert.deepEqual([next.chat, next.account === talk.account], [talk.chat, true]);
            assert.equal(one.asks(fake).at(-1).text, `and then ${i}?`);
        }
    });

scenario('a chat that the platform has dropped meanwhile begins anew', async (t) => {
    const fake = await startFakeHix(t, { strict: false });
    const gw = await startGateway(t, { config: { retry: { retries: 0 }, 'provider hix': { type: 'hix', base_url: fake.base, credentials: fake.sessions } } });
    const first = await turn(gw, fake, [user('Name a colour.')]);
    await gw.restart();
    fake.chats.clear();
    const answer = await request(gw, { body: { model: 'gpt-4o', messages: [user('Name a colour.'), assistant(first.text), user('Another.')] } });
    assert.equal(answer.status, 200, answer.text);
    const { json } = fake.of('/api/hix/chat').at(-1);
    assert.notEqual(json.chatId, first.chat);
    assert.match(json.question, /Name a colour\.[^]*Another\./);
});

scenario('CHAT_MAX_DAYS: a chat that nobody has used for so long goes, also after a restart', async (t) => {
    const fake = await startFakeHix(t, { sessions: SESSIONS.slice(0, 1) });
    const gw = await startGateway(t, { config: { auth: { admin_secret: SECRET }, 'provider hix': { type: 'hix', base_url: fake.base, credentials: fake.sessions, 'x.delete_after': '200ms' } } });
    await turn(gw, fake, [user('one')]);
    await gw.restart();
    await turn(gw, fake, [user('two')]);
    const [{ id }] = (await request(gw, { path: '/admin/api/credentials', key: SECRET })).json.data;
    await sleep(450);
    const checked = await request(gw, { method: 'POST', path: `/admin/api/credentials/${id}/check`, key: SECRET });
    assert.equal(checked.json.ok, true, checked.text);
    assert.equal(fake.chats.size, 0);
    assert.equal(fake.of('/api/trpc/hixChat.deleteChat').length, 2);
});

// ---- hixai2api's ---------------------------------------------------------------------------------------------------

const THINKING = '<think>\nif (a < b)\n</think>Violet & "so on"\n';

/** Chats as that system left them, which the fake platform has, too. */
function oldChats(fake) {
    const chats = [
        { session: SESSIONS[2], model: 'gpt-4o', id: 'old-1', question: 'line one\nline two', answer: THINKING },
        { session: SESSIONS[1], model: 'gpt-4o', id: 'old-2', question: 'hello', answer: 'Hi there!' },
        { session: SESSIONS[3], model: 'gpt-4o-search', id: 'old-3', question: 'news?', answer: 'None.', hashOnly: true },
        // hello, by two people: whose is it?
        { session: SESSIONS[0], model: 'gpt-4o', id: 'old-4', question: 'hi', answer: 'Hello!' },
        { session: SESSIONS[1], model: 'gpt-4o', id: 'old-5', question: 'hi', answer: 'Hello!' },
        // the same chat a turn before
        { session: SESSIONS[1], model: 'gpt-4o', id: 'old-2', question: 'before', answer: 'that', usedAt: '2025-02-01 10:00:00' },
        { session: sessionToken('nobody'), model: 'gpt-4o', id: 'old-6', question: 'x', answer: 'y' },
    ];
    for (const { id, session } of chats) fake.chats.set(id, { session, botId: 5 });
    return chats;
}

async function checkOldChats(gw, fake) {
    const key = '';
    const one = [user('what was before'), assistant('is not asked for'), user('line one\nline two'), assistant(THINKING), user('go on')];
    const first = await turn(gw, fake, one, { key });
    assert.deepEqual([first.chat, first.session, first.question], ['old-1', SESSIONS[2], 'go on']);
    const second = await turn(gw, fake, [user('hello'), assistant('  Hi there!\n'), user('next')], { key });
    assert.deepEqual([second.chat, second.session, second.question], ['old-2', SESSIONS[1], 'next']);
    const third = await turn(gw, fake, [user('news?'), assistant('None.'), user('and now?')], { key });
    assert.deepEqual([third.chat, third.session, third.question], ['old-3', SESSIONS[3], 'and now?']);
    // once: whoever says the same later is somebody else
    const later = await turn(gw, fake, [user('hello'), assistant('Hi there!'), user('what did I say?')], { key });
    assert.match(later.chat, /^chat-/);
    assert.match(later.question, /hello[^]*Hi there![^]*what did I say\?/);
    for (const [question, said] of [['hi', 'Hello!'], ['before', 'that'], ['x', 'y']]) {
        const anew = await turn(gw, fake, [user(question), assistant(said), user('next')], { key });
        assert.match(anew.chat, /^chat-/, question);
    }
    // from now on it is one of ours, by all that was said
    const on = await turn(gw, fake, [...one, assistant(first.text), user('and on')], { key });
    assert.deepEqual([on.chat, on.question], ['old-1', 'and on']);
}

const IMPORTED = /conversations: 3 go on in their chats, 1 are of accounts that are not here, 2 cannot be told from one another;/;

scenario('import hixai2api: its chats go on, by way of the store', async (t) => {
    const fake = await startFakeHix(t, { sessions: SESSIONS });
    const dir = makeDir();
    const env = { BACKEND_SECRET: SECRET, PORT: '1', CHATMUX_PROVIDER_HIX_BASE_URL: fake.base, CHATMUX_STORE_STATE_DIR: join(dir, 'state') };
    writeFileSync(join(dir, 'dump.sql'), dumpOf(SESSIONS, [], oldChats(fake)));
    const r = runCommand(['import', 'hixai2api', join(dir, 'dump.sql')], { dir, env });
    assert.equal(r.code, 0, r.out);
    assert.match(r.stdout, IMPORTED);
    const gw = await startGateway(t, { seed: { ...env, PORT: undefined } });
    await checkOldChats(gw, fake);
});

scenario('import hixai2api: its chats go on, by way of the gateway that runs', async (t) => {
    const fake = await startFakeHix(t, { sessions: SESSIONS });
    const gw = await startGateway(t, { seed: { BACKEND_SECRET: SECRET, CHATMUX_PROVIDER_HIX_BASE_URL: fake.base } });
    writeFileSync(join(gw.dir, 'dump.sql'), dumpOf(SESSIONS, [], oldChats(fake)));
    const r = runCommand(['import', 'hixai2api', join(gw.dir, 'dump.sql')], { dir: gw.dir, env: { BACKEND_SECRET: SECRET, PORT: String(gw.port) } });
    assert.equal(r.code, 0, r.out);
    assert.match(r.stdout, IMPORTED);
    await checkOldChats(gw, fake);

    const take = (body) => request(gw, { path: '/admin/api/conversations', key: SECRET, body });
    const name = 'a'.repeat(64);
    for (const [body, param] of [
        [{ provider: 'hix', secret: cookieOf(sessionToken('nobody')), conversations: [`gpt-4o ${name} c`] }, 'secret'],
        [{ provider: 'nix', secret: cookieOf(SESSIONS[0]), conversations: [`gpt-4o ${name} c`] }, 'provider'],
        [{ provider: 'hix', secret: cookieOf(SESSIONS[0]), conversations: [`gpt-4o ${name}`] }, 'conversations'],
        [{ provider: 'hix', secret: cookieOf(SESSIONS[0]), conversations: [`gpt-4o ${name} c d`] }, 'conversations'],
        [{ provider: 'hix', secret: cookieOf(SESSIONS[0]) }, 'conversations'],
        // more than can be on the disk when they are told as taken
        [{ provider: 'hix', secret: cookieOf(SESSIONS[0]), conversations: Array(1001).fill(`gpt-4o ${name} c`) }, 'conversations'],
        [{ provider: 'hix', secret: cookieOf(SESSIONS[0]), conversations: [`gpt-4o ${name} ${'c'.repeat(4097)}`] }, 'conversations'],
    ]) {
        const refused = await take(body);
        assert.deepEqual([refused.status, refused.error.param], [400, param], refused.text);
    }
    const taken = await take({ provider: 'hix', secret: SESSIONS[0], conversations: [`gpt-4o ${name} c`, `gpt-4o ${'b'.repeat(64)} d`] });
    assert.deepEqual([taken.status, taken.json.taken], [200, 2], taken.text);
    await gw.restart();
    await turn(gw, fake, [user('Name a colour.')], { key: '' });
});

scenario('its chats come along at the first start, and survive the next', async (t) => {
    const fake = await startFakeHix(t, { sessions: SESSIONS });
    const gw = await startGateway(t, {
        seed: { BACKEND_SECRET: SECRET, CHATMUX_PROVIDER_HIX_BASE_URL: fake.base },
        prepare: (one) => sqliteFile(join(one.dir, 'hix-ai-2-api.db'), SESSIONS, [], oldChats(fake)),
    });
    assert.match(gw.output, /took over 4 accounts, 0 client keys and 3 conversations/);
    await gw.restart();
    await checkOldChats(gw, fake);
});
