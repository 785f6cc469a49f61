// deepseek through the gateway: proofs of work, patches, conversations that go on or are deleted.
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import OpenAI from 'openai';
import { chat, CLIENT_KEY, request, scenario, startGateway, until } from '../lib/gateway.mjs';
import { connect, rawChat, readChatStream } from '../lib/raw.mjs';
import { bizError, codeError, say, startFakeDeepseek, userToken } from '../lib/fake_deepseek.mjs';

const ASK = '/api/v0/chat/completion';
const CREATE = '/api/v0/chat_session/create';
const DELETE = '/api/v0/chat_session/delete';
const CHALLENGE = '/api/v0/chat/create_pow_challenge';

async function pair(t, { fake: fakeOptions, provider, config } = {}) {
    const fake = await startFakeDeepseek(t, { difficulty: 5000, ...fakeOptions });
    const gw = await startGateway(t, {
        config: { retry: { retries: 0 }, 'provider deepseek': { type: 'deepseek', base_url: fake.base, credentials: fake.tokens, ...provider }, ...config },
    });
    return { fake, gw, sdk: new OpenAI({ baseURL: gw.base, apiKey: CLIENT_KEY, maxRetries: 0 }) };
}

const ask = (text) => [{ role: 'user', content: text }];
const one = { accounts: [userToken('one')] };

for (const generation of ['fragments', 'contents', 'choices'])
    scenario(`the official SDK, plain and streamed, ${generation}`, async (t) => {
        const { fake, sdk } = await pair(t, { fake: { generation, difficulty: 144_000 } });
        fake.always(say.answer({ reasoning: ['Two ', 'opt', 'ions é.'], pieces: ['Bl', 'ue é', '世', '🌍', '.'] }));
        const { data, response } = await sdk.chat.completions.create({ model: 'deepseek-reasoner', messages: ask('Name a colour.') }).withResponse();
        const [choice] = data.choices;
        assert.equal(choice.message.content, 'Blue é世🌍.');
        assert.equal(choice.message.reasoning_content, 'Two options é.');
        assert.equal(choice.finish_reason, 'stop');
        assert.equal(data.model, 'deepseek-reasoner');
        assert.equal(response.headers.get('x-chatmux-provider'), 'deepseek');
        assert.ok(data.usage.total_tokens > 0);
        assert.ok(data.usage.completion_tokens_details.reasoning_tokens > 0);

        let reasoning = '';
        const stream = sdk.chat.completions.stream({ model: 'deepseek/deepseek-chat-thinking', messages: ask('Name a colour.') });
        stream.on('chunk', (chunk) => (reasoning += chunk.choices[0]?.delta.reasoning_content ?? ''));
        const final = await stream.finalChatCompletion();
        assert.equal(final.choices[0].message.content, 'Blue é世🌍.');
        assert.equal(reasoning, 'Two options é.');
        const asked = fake.of(ASK).map((rec) => rec.json);
        assert.deepEqual(asked.map((json) => json.thinking_enabled), [true, true]);
        assert.deepEqual(asked.map((json) => json.prompt), ['Name a colour.', 'Name a colour.']);
    });

scenario('an answer in packets of one byte', async (t) => {
    const { fake, sdk } = await pair(t, { fake: { split: 1, nested: true } });
    fake.always(say.answer({ reasoning: ['hm é'], pieces: ['世界 ', '🌍'], tokens: 77 }));
    const answer = await sdk.chat.completions.create({ model: 'deepseek-chat', messages: ask('x') });
    assert.equal(answer.choices[0].message.content, '世界 🌍');
    assert.equal(answer.usage.total_tokens, 77);
});

scenario('the expert, and -search with citations', async (t) => {
    const { fake, gw, sdk } = await pair(t);
    fake.always(say.answer({ pieces: ['It is[cita', 'tion:2] so[citation:1].'], results: [{ url: 'https://a.test/', title: 'A' }, { url: 'https://b.test/', title: 'B' }, { url: 'https://c.test/', title: 'C' }], cited: [1, 2] }));
    const { message } = (await sdk.chat.completions.create({ model: 'deepseek-v4-pro-search', messages: ask('news?') })).choices[0];
    assert.equal(message.content, 'It is so.');
    assert.deepEqual(message.annotations.map((a) => a.url_citation.url), ['https://a.test/', 'https://b.test/']);
    const { json } = fake.of(ASK)[0];
    assert.deepEqual([json.search_enabled, json.thinking_enabled, json.model_type], [true, true, 'expert']);
    const { chunks, text } = readChatStream((await request(gw, { body: chat('deepseek-chat-search', 'news?', { stream: true }) })).bytes);
    assert.equal(text, 'It is so.');
    assert.ok(JSON.stringify(chunks).includes('https://b.test/'));
});

scenario('citations as links', async (t) => {
    const { fake, sdk } = await pair(t, { provider: { 'x.citations': 'links' } });
    fake.always(say.answer({ pieces: ['So[citation:1].'], results: [{ url: 'https://a.test/', title: 'A' }], cited: [1] }));
    const { message } = (await sdk.chat.completions.create({ model: 'deepseek-chat-search', messages: ask('news?') })).choices[0];
    assert.equal(message.content, 'So[[1]](https://a.test/).');
    const [{ url_citation: cited }] = message.annotations;
    assert.equal(message.content.slice(cited.start_index, cited.end_index), '[[1]](https://a.test/)');
});

scenario('proofs are made ahead, and each is used once', async (t) => {
    const { fake, gw } = await pair(t, { fake: one, provider: { 'x.conversations': 'new' } });
    for (let i = 0; i < 5; i++) {
        assert.equal((await request(gw, { body: chat('deepseek-chat', `q${i}`) })).status, 200);
        await until(() => fake.challenges === i + 2, 'the next challenge');
        await sleep(30);
    }
    const order = fake.requests.map((rec) => rec.path.split('/').at(-1));
    assert.deepEqual(order.slice(0, 7), ['create', 'create_pow_challenge', 'completion', 'create_pow_challenge', 'create', 'completion', 'create_pow_challenge']);
    assert.equal(fake.challenges, 6);
});

scenario('a conversation goes on where it was', async (t) => {
    const { fake, sdk } = await pair(t, { fake: one });
    const messages = ask('Name a colour.');
    for (let turn = 0; turn < 3; turn++) {
        fake.always(say.answer({ pieces: [`answer ${turn}`] }));
        const { message } = (await sdk.chat.completions.create({ model: 'deepseek-chat', messages })).choices[0];
        messages.push({ role: 'assistant', content: message.content }, { role: 'user', content: `question ${turn}` });
    }
    const asked = fake.of(ASK).map((rec) => rec.json);
    assert.equal(fake.of(CREATE).length, 1);
    assert.deepEqual(asked.map((json) => json.parent_message_id), [null, 2, 4]);
    assert.deepEqual(asked.map((json) => json.prompt), ['Name a colour.', 'question 0', 'question 1']);

    // the account's owner deletes it: all of it is told to a new one
    for (const account of fake.accounts) account.sessions.clear();
    fake.refusals.length = 0;
    const { message } = (await sdk.chat.completions.create({ model: 'deepseek-chat', messages })).choices[0];
    assert.equal(message.content, 'answer 2');
    assert.equal(fake.refusals.length, 1);
    assert.match(fake.refusals.pop().what, /^no conversation/);
    assert.match(fake.of(ASK).at(-1).json.prompt, /^Name a colour\.<｜Assistant｜>answer 0<｜end▁of▁sentence｜><｜User｜>question 0/);
});

scenario('another history begins another conversation', async (t) => {
    const { fake, sdk } = await pair(t, { fake: one });
    await sdk.chat.completions.create({ model: 'deepseek-chat', messages: ask('Name a colour.') });
    await sdk.chat.completions.create({ model: 'deepseek-chat', messages: [...ask('Name a colour.'), { role: 'assistant', content: 'Red' }, ...ask('why?')] });
    assert.equal(fake.of(CREATE).length, 2);
});

for (const stream of [false, true])
    scenario(`nothing is left undeleted, ${stream ? 'streamed' : 'whole'}`, async (t) => {
        const { fake, gw } = await pair(t, { provider: { 'x.conversations': 'delete' } });
        for (let i = 0; i < 4; i++) assert.equal((await request(gw, { body: chat('deepseek-chat', `q${i}`, { stream }) })).status, 200);
        fake.next(say.hint('rate_limit_reached', 'slower'), say.hint('generation_timeout', 'busy'));
        await request(gw, { body: chat('deepseek-chat', 'x', { stream }) });
        fake.next(say.cut());
        await request(gw, { body: chat('deepseek-chat', 'x', { stream }) }).catch((error) => assert.ok(stream && error.code === 'ECONNRESET', error));
        await until(() => fake.sessionsLeft === 0, 'all conversations to be deleted');
    });

scenario('what a process that was killed left behind goes with a later answer', async (t) => {
    const { fake, gw } = await pair(t, { fake: one, provider: { 'x.conversations': 'delete' } });
    fake.next(say.hang(['one ']));
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('deepseek-chat', 'x', { stream: true })));
    await until(() => fake.of(ASK).length === 1, 'the question');
    await sleep(400); // the store writes in groups, every 250 ms
    await gw.restart({ how: 'SIGKILL' });
    assert.equal(fake.sessionsLeft, 1);
    assert.equal((await request(gw, { body: chat('deepseek-chat', 'x') })).status, 200);
    await until(() => fake.sessionsLeft === 0, 'both conversations to be deleted');
});

scenario('a client that leaves', async (t) => {
    const { fake, gw } = await pair(t, { fake: { latencyMs: 40, difficulty: 144_000 }, provider: { 'x.conversations': 'delete' } });
    fake.always(say.hang(['one ']));
    // at every moment: while the conversation is made, while its proof is, before and after the answer began
    for (const after of [20, 60, 95, 110, 150, 190, 300]) {
        const raw = await connect(t, gw);
        raw.send(rawChat(chat('deepseek-chat', 'x', { stream: true })));
        await sleep(after);
        raw.close();
        await until(() => gw.accessLines().some((line) => line.outcome === 'client_gone'), 'the exchange to be settled');
        await until(() => fake.sessionsLeft === 0 && fake.accounts.every((a) => a.streams === 0), `nothing to be left after ${after} ms`);
        gw.output = '';
        await sleep(60); // one that was being made is known by now
        await until(() => fake.sessionsLeft === 0, `a conversation made after the client had left (${after} ms)`);
    }
    assert.ok(fake.accounts.some((a) => a.stopped.length > 0), 'no answer was stopped');
    fake.always(say.answer());
    assert.equal((await request(gw, { body: chat('deepseek-chat') })).status, 200, 'an account was blamed');
});

scenario('a stream that the platform leaves open does not hold the client', async (t) => {
    const { fake, gw } = await pair(t, { fake: one });
    fake.always(say.answer({ tail: false }));
    const began = performance.now();
    const answer = await request(gw, { body: chat('deepseek-chat', 'x', { stream: true }) });
    assert.equal(readChatStream(answer.bytes).text, 'Blue');
    assert.ok(performance.now() - began < 3000);
});

scenario('a cut answer is continued', async (t) => {
    const { fake, sdk } = await pair(t, { fake: one });
    fake.next(say.answer({ pieces: ['One '], status: 'INCOMPLETE' }));
    fake.continuations.push(
        say.answer({ before: [{ id: 1, type: 'RESPONSE', content: 'One ' }], pieces: ['two '], status: 'INCOMPLETE' }),
        say.answer({ pieces: ['three'], status: 'FINISHED' }),
    );
    const answer = await sdk.chat.completions.create({ model: 'deepseek-chat', messages: ask('count') });
    assert.equal(answer.choices[0].message.content, 'One two three');
    assert.equal(answer.choices[0].finish_reason, 'stop');
});

// --- accounts ---------------------------------------------------------------------------------------------------------

const LOGIN = '/api/v0/users/login';
const CURRENT = '/api/v0/users/current';
const state = async (gw) => [...(await gw.metrics())].filter(([key, n]) => key.startsWith('chatmux_credentials{') && n > 0).map(([key]) => /state="(\w+)"/.exec(key)[1]).sort().join();

scenario('a password logs in when it is first needed, and stays logged in', async (t) => {
    const accounts = [{ email: 'me@example.org', password: 'pa:ss "word"' }, { mobile: '13800000000', password: 'pw' }];
    const { fake, gw } = await pair(t, { fake: { accounts }, provider: { credentials: ['me@example.org:pa:ss "word"', '+8613800000000:pw'], 'x.conversations': 'new' } });
    assert.equal(fake.requests.length, 0, 'nobody logs in before there is a question');
    for (let i = 0; i < 6; i++) assert.equal((await request(gw, { body: chat('deepseek-chat', `q${i}`) })).status, 200);
    assert.deepEqual(fake.accounts.map((a) => a.logins), [1, 1]);
    assert.deepEqual(fake.of(LOGIN).map((rec) => [rec.json.email, rec.json.mobile, rec.json.area_code]).sort(), [[undefined, '13800000000', '+86'], ['me@example.org', undefined, undefined]].sort());
    for (const secret of ['pa:ss', 'me@example.org', ...fake.accounts.flatMap((a) => [...a.valid])]) assert.ok(!gw.output.includes(secret), `${secret} in the log`);

    await gw.restart(); // the tokens were kept
    for (let i = 0; i < 4; i++) assert.equal((await request(gw, { body: chat('deepseek-chat', `r${i}`) })).status, 200);
    assert.deepEqual(fake.accounts.map((a) => a.logins), [1, 1]);

    for (const account of fake.accounts) account.valid.clear(); // logged out elsewhere
    assert.equal((await request(gw, { body: chat('deepseek-chat') })).status, 200);
    assert.ok(fake.accounts.some((a) => a.logins === 2));
});

scenario('a wrong password waits for its operator', async (t) => {
    const { fake, gw } = await pair(t, { fake: { accounts: [{ email: 'a@b.c', password: 'right' }] }, provider: { credentials: ['a@b.c:wrong'] }, config: { retry: { max_wait: '5s' } } });
    const answer = await request(gw, { body: chat('deepseek-chat') });
    assert.ok([502, 503].includes(answer.status), answer.text);
    assert.equal(fake.of(LOGIN).length, 1);
    await request(gw, { body: chat('deepseek-chat') });
    assert.equal(fake.of(LOGIN).length, 1, 'the password was tried again');
    assert.equal(await state(gw), 'needs_login');
    assert.ok(!answer.text.includes('wrong'));
});

scenario('a user token that is only good for another one', async (t) => {
    const { fake, gw } = await pair(t, { fake: { accounts: [{ token: userToken('old'), exchange: true }] } });
    for (let i = 0; i < 3; i++) assert.equal((await request(gw, { body: chat('deepseek-chat', `q${i}`) })).status, 200);
    assert.equal(fake.of(CURRENT).length, 1);
    assert.equal(await state(gw), 'ok');
});

scenario('a user token that is good for nothing', async (t) => {
    const good = userToken('good');
    const { fake, gw } = await pair(t, { fake: { accounts: [{ token: userToken('dead'), exchange: 'refused' }, good] } });
    for (let i = 0; i < 4; i++) assert.equal((await request(gw, { body: chat('deepseek-chat', `q${i}`) })).status, 200);
    assert.ok(fake.of(CURRENT).length <= 1);
    await until(async () => (await state(gw)) === 'needs_login,ok', 'the dead account to wait for its operator');
});

scenario('accounts are checked', async (t) => {
    const admin = 'admin-secret-of-the-test';
    const { fake, gw } = await pair(t, {
        fake: { accounts: [userToken('fine'), { token: userToken('muted'), mutedUntil: Date.now() / 1000 + 500 }, { email: 'a@b.c', password: 'pw' }] },
        provider: { credentials: [userToken('fine'), userToken('muted'), 'a@b.c:pw'] },
        config: { auth: { admin_secret: admin } },
    });
    const api = (method, path) => request(gw, { method, path: `/admin/api${path}`, key: admin });
    const { data } = (await api('GET', '/credentials')).json;
    const checks = [];
    for (const cred of data) checks.push((await api('POST', `/credentials/${cred.id}/check`)).json);
    assert.deepEqual(checks.map((c) => c.ok), [true, false, true]);
    assert.match(checks[1].message, /muted/);
    const after = (await api('GET', '/credentials')).json.data;
    assert.deepEqual(after.map((c) => c.state), ['ok', 'cooling', 'ok']);
    assert.deepEqual(after[0].quota, { thinking: { quota: 50, used: 3 } });
    assert.equal(fake.accounts[2].logins, 1);
    assert.equal((await request(gw, { body: chat('deepseek-chat') })).status, 200);
    assert.equal(fake.accounts[2].logins, 1, 'the token of the check was thrown away');
});

// --- files ------------------------------------------------------------------------------------------------------------

const PNG = Buffer.from('89504e470d0a1a0a0000000d49484452', 'hex');
const picture = { type: 'image_url', image_url: { url: `data:image/png;base64,${PNG.toString('base64')}` } };

scenario('pictures and files go up with the question', async (t) => {
    const { fake, sdk } = await pair(t, { fake: one });
    const pdf = Buffer.from('%PDF-1.7 é');
    const content = [{ type: 'text', text: 'what is it?' }, picture, { type: 'file', file: { filename: 'a.pdf', file_data: `data:application/pdf;base64,${pdf.toString('base64')}` } }];
    const answer = await sdk.chat.completions.create({ model: 'deepseek-reasoner', messages: [{ role: 'user', content }] });
    assert.equal(answer.choices[0].message.content, 'Blue');
    const files = [...fake.accounts[0].files.values()];
    assert.deepEqual(files.map((f) => [f.name, f.type, f.bytes.equals(f.name === 'a.pdf' ? pdf : PNG)]), [['image.png', 'image/png', true], ['a.pdf', 'application/pdf', true]]);
    assert.deepEqual(fake.of(ASK)[0].json.ref_file_ids, files.map((f) => f.id));
    assert.deepEqual(fake.of('/api/v0/file/upload_file').map((rec) => rec.headers['x-thinking-enabled']), ['1', '1']);

    // the next turn only carries what is new
    await sdk.chat.completions.create({ model: 'deepseek-reasoner', messages: [{ role: 'user', content }, { role: 'assistant', content: 'Blue' }, { role: 'user', content: 'sure?' }] });
    assert.equal(fake.of('/api/v0/file/upload_file').length, 2);
    assert.deepEqual(fake.of(ASK)[1].json.ref_file_ids, []);
});

scenario('a picture that only another model can read', async (t) => {
    const { fake, sdk } = await pair(t, { fake: one });
    fake.fileEnd = (file) => (file.forkOf ? 'SUCCESS' : 'CONTENT_EMPTY');
    await sdk.chat.completions.create({ model: 'deepseek-chat', messages: [{ role: 'user', content: [{ type: 'text', text: 'what is it?' }, picture] }] });
    const { json } = fake.of(ASK)[0];
    assert.equal(json.model_type, 'vision');
    assert.ok(fake.accounts[0].files.get(json.ref_file_ids[0]).forkOf);
});

scenario('a large picture, and one that cannot be read', async (t) => {
    const { fake, gw } = await pair(t, { fake: one });
    const big = Buffer.alloc(8_000_000, 'x');
    const body = { model: 'deepseek-chat', messages: [{ role: 'user', content: [{ type: 'text', text: 'what is it?' }, { type: 'image_url', image_url: { url: `data:image/png;base64,${big.toString('base64')}` } }] }] };
    await gw.metrics();
    assert.equal((await request(gw, { body })).status, 200);
    assert.ok([...fake.accounts[0].files.values()][0].bytes.equals(big));
    fake.fileEnd = () => 'FAILED';
    const failed = await request(gw, { body: { model: 'deepseek-chat', messages: [{ role: 'user', content: [{ type: 'text', text: 'and this?' }, picture] }] } });
    assert.equal(failed.status, 400, failed.text);
    assert.equal(fake.of(CREATE).length, 1);
});

// --- failures ---------------------------------------------------------------------------------------------------------

const MUTED = (s) => bizError(5, 'user is muted', { is_muted: 1, mute_until: Date.now() / 1000 + s });

scenario('each error of the catalogue, at each call', async (t) => {
    for (const [what, behave, statuses, code, moves = true] of [
        ['invalid token', say.json(codeError(40003, 'Authorization Failed (invalid token)')), [502], 'upstream_auth'],
        ['other token errors', say.json(codeError(40001, '')), [502], 'upstream_auth'],
        ['HTTP 401', say.status(401, ''), [502], 'upstream_auth'],
        ['too often', say.json(bizError(1, '消息发送过于频繁，请稍后重试')), [429], 'rate_limit_exceeded'],
        ['too often, by code', say.json(codeError(40029, '')), [429], 'rate_limit_exceeded'],
        ['still answering', say.json(bizError(4, 'A message is being generated, please try again later.')), [429], 'rate_limit_exceeded'],
        ['muted', say.json(MUTED(3600)), [429], 'rate_limit_exceeded'],
        ['HTTP 429', say.status(429, '', { 'retry-after': '30' }), [429], 'rate_limit_exceeded'],
        ['bad request', say.json(bizError(6, 'something else')), [400], null, false],
        ['HTTP 422', say.status(422, { detail: [{ loc: 'body.prompt' }] }), [400], null, false],
        ['WAF', say.waf(), [503], 'verification_required'],
        ['HTML', say.html(403), [503], 'verification_required'],
        ['HTML with status 200', say.html(200), [503], 'verification_required'],
        ['server error', say.status(500, ''), [502], 'upstream_error'],
        ['HTML error page', say.html(502), [502], 'upstream_error'],
        ['overload codes', say.json(codeError(1001, '')), [502], 'upstream_error'],
        ['garbage', say.status(200, '{"code":'), [502], 'upstream_error'],
    ])
        for (const path of [CREATE, CHALLENGE, ASK]) {
            const { fake, gw } = await pair(t, { provider: { 'x.prefetch': 'no', 'x.conversations': 'new' }, config: { retry: { retries: 0, max_wait: '0s' } } });
            fake.on(path, () => behave);
            if (code === 'upstream_auth') fake.on('/api/v0/users/current', () => behave); // nor does it give another token
            const answer = await request(gw, { body: chat('deepseek-chat', 'x', { stream: true }) });
            assert.ok(statuses.includes(answer.status), `${what} at ${path}: ${answer.status} ${answer.text}`);
            if (code) assert.equal(answer.error.code, code, `${what} at ${path}`);
            if (answer.status === 429) assert.ok(Number(answer.headers['retry-after']) > 0, `${what}: no retry-after`);
            assert.ok(!answer.text.includes('<html') && !fake.tokens.some((token) => answer.text.includes(token)));
            assert.equal(fake.of(path).length, moves ? 2 : 1, `${what} at ${path}: ${fake.of(path).length} calls`);
            if (!['upstream_auth', 'verification_required'].includes(code)) assert.equal(fake.sessionsLeft, 0, `${what} at ${path}: a conversation is left`);
            await gw.stop();
        }
});

scenario('failures inside of the stream move on to the other account', async (t) => {
    for (const behave of [say.hint('rate_limit_reached', '消息发送过于频繁'), say.hint('generation_timeout', 'Server busy, please try again later.'), say.hint('', 'daily quota'), say.hint('new', 'new'), say.cut([]), say.answer({ pieces: [] })]) {
        const { fake, gw } = await pair(t);
        fake.next(behave);
        const answer = await request(gw, { body: chat('deepseek-chat', 'x', { stream: true }) });
        assert.equal(answer.status, 200, answer.text);
        assert.equal(readChatStream(answer.bytes).text, 'Blue');
        assert.equal(answer.headers['x-chatmux-attempts'], '2');
        const accounts = fake.of(ASK).map((rec) => rec.account);
        assert.notEqual(accounts[0], accounts[1]);
        await gw.stop();
    }
});

scenario('a stream without an end was cut', async (t) => {
    const { fake, gw } = await pair(t);
    fake.always(say.cut(['half ']));
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('deepseek-chat', 'x', { stream: true })));
    assert.equal((await raw.head()).status, 200);
    const { bytes, clean } = await raw.drainStream();
    const got = readChatStream(bytes);
    assert.equal(got.text, 'half ');
    assert.ok(got.error);
    assert.equal(got.done, false);
    assert.equal(clean, false);
});

scenario('filters and limits of length', async (t) => {
    const { fake, gw } = await pair(t);
    fake.next(say.answer({ pieces: [], status: 'CONTENT_FILTER' }));
    const filtered = await request(gw, { body: chat('deepseek-chat') });
    assert.equal(filtered.status, 400);
    assert.equal(filtered.error.code, 'content_filter');
    fake.next(say.answer({ pieces: ['Half'], status: 'CONTENT_FILTER' }));
    const half = (await request(gw, { body: chat('deepseek-chat') })).json.choices[0];
    assert.deepEqual([half.message.content, half.finish_reason], ['Half', 'content_filter']);
    fake.next(say.answer({ pieces: [], status: 'CONTEXT_LENGTH_EXCEEDED' }));
    const long = await request(gw, { body: chat('deepseek-chat') });
    assert.deepEqual([long.status, long.error.code], [400, 'context_length_exceeded']);
});

scenario('a proof that the platform refuses is made once more', async (t) => {
    const { fake, gw } = await pair(t, { fake: { ...one, strict: false }, provider: { 'x.prefetch': 'no' } });
    let refused = 0;
    fake.on(ASK, () => (refused++ < 1 ? say.json(codeError(40301, 'INVALID_POW_RESPONSE')) : null));
    assert.equal((await request(gw, { body: chat('deepseek-chat') })).status, 200);
    assert.equal(fake.challenges, 2);
});

// --- many -------------------------------------------------------------------------------------------------------------

scenario('300 requests at once over 20 accounts', { timeout: 120_000 }, async (t) => {
    const accounts = Array.from({ length: 20 }, (_, i) => userToken(`many ${i}`));
    const { fake, gw } = await pair(t, {
        fake: { accounts, difficulty: 144_000, cap: 2, latencyMs: 5 },
        provider: { max_inflight: 2, 'x.conversations': 'delete' },
        config: { retry: { retries: 0, max_wait: '20s' } },
    });
    fake.always(say.answer({ pieces: Array.from({ length: 10 }, (_, i) => `${i} `), gapMs: 10 }));
    const answers = await Promise.all(Array.from({ length: 300 }, (_, i) => request(gw, { body: chat('deepseek-chat', `question ${i}`, { stream: i % 2 === 0 }), timeoutMs: 100_000 })));
    const ok = answers.filter((a) => a.status === 200);
    const limited = answers.filter((a) => a.status === 429);
    t.diagnostic(`${ok.length} answered, ${limited.length} told to wait; at most ${fake.peak} streams of an account; ${fake.challenges} challenges`);
    assert.equal(ok.length + limited.length, 300, `${answers.find((a) => a.status !== 200 && a.status !== 429)?.text}`);
    for (const a of limited) assert.ok(Number(a.headers['retry-after']) > 0);
    assert.ok(ok.length >= 100, `only ${ok.length} were answered`);
    assert.ok(fake.peak <= 2);
    for (const a of ok) assert.match(a.text, /9 /);
    await until(() => fake.sessionsLeft === 0, 'all conversations to be deleted', 20_000);
    assert.equal(fake.accounts.reduce((n, a) => n + a.created, 0), fake.accounts.reduce((n, a) => n + a.deleted, 0));
});

scenario('the loop goes on while proofs are computed', { timeout: 120_000 }, async (t) => {
    const accounts = Array.from({ length: 50 }, (_, i) => userToken(`lag ${i}`));
    const { fake, gw } = await pair(t, { fake: { accounts, difficulty: 144_000 }, provider: { 'x.conversations': 'new', 'x.prefetch': 'no' } });
    await request(gw, { body: chat('deepseek-chat') });
    await gw.metrics(); // reading it begins a new interval
    const lags = [];
    let over = false;
    const watch = (async () => {
        while (!over) {
            await sleep(20);
            lags.push((await gw.metrics()).get('chatmux_loop_lag_seconds') * 1000);
        }
    })();
    const answers = await Promise.all(Array.from({ length: 50 }, (_, i) => request(gw, { body: chat('deepseek-chat', `q${i}`), timeoutMs: 60_000 })));
    over = true;
    await watch;
    assert.ok(answers.every((a) => a.status === 200));
    assert.equal(fake.challenges, 51);
    lags.sort((a, b) => a - b);
    t.diagnostic(`lag: median ${lags[lags.length >> 1].toFixed(1)} ms, most ${lags.at(-1).toFixed(1)} ms, of ${lags.length} readings`);
    // fifty proofs are half a second and more; the rest is what a busy machine adds
    assert.ok(lags[lags.length >> 1] < 20, `median lag ${lags[lags.length >> 1]} ms`);
    assert.ok(lags.at(-1) < 150, `lag ${lags.at(-1)} ms`);
});
