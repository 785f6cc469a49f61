// genspark through the gateway: a cookie platform with two dialects behind the OpenAI surface.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { chat, CLIENT_KEY, request, scenario, startGateway, until } from '../lib/gateway.mjs';
import { connect, rawChat, readChatStream } from '../lib/raw.mjs';
import { IMAGE_BYTES, say, session, startFakeGenspark, startPublicHost, startVerifier } from '../lib/fake_genspark.mjs';

async function pair(t, { fake: fakeOptions, provider, config } = {}) {
    const fake = await startFakeGenspark(t, fakeOptions);
    const gw = await startGateway(t, {
        config: { retry: { retries: 0 }, 'provider genspark': { type: 'genspark', base_url: fake.base, credentials: fake.sessions, ...provider }, ...config },
    });
    return { fake, gw, sdk: new OpenAI({ baseURL: gw.base, apiKey: CLIENT_KEY, maxRetries: 0 }) };
}

const ask = (text) => [{ role: 'user', content: text }];

for (const dialect of ['agent', 'copilot'])
    scenario(`an answer, whole and streamed, ${dialect} dialect`, async (t) => {
        const { fake, gw, sdk } = await pair(t, { provider: { 'x.dialect': dialect } });
        fake.always(say.answer({ pieces: ['Bl', 'ue é', '世', '🌍', '.'], reasoning: ['Two ', 'options.'] }));
        const { data, response } = await sdk.chat.completions.create({ model: 'gpt-5.2', messages: ask('Name a colour.') }).withResponse();
        assert.equal(data.choices[0].message.content, 'Blue é世🌍.');
        assert.equal(data.choices[0].message.reasoning_content, 'Two options.');
        assert.equal(data.choices[0].finish_reason, 'stop');
        assert.equal(data.model, 'gpt-5.2');
        assert.equal(response.headers.get('x-chatmux-provider'), 'genspark');
        assert.ok(data.usage.total_tokens > 0);

        const final = await sdk.chat.completions.stream({ model: 'genspark/claude-haiku-4-5', messages: ask('Name a colour.') }).finalChatCompletion();
        assert.equal(final.choices[0].message.content, 'Blue é世🌍.');
        const plain = readChatStream((await request(gw, { body: chat('gpt-5.2', 'x', { stream: true }) })).bytes);
        assert.equal(plain.text, 'Blue é世🌍.');
        assert.equal(plain.chunks.map((c) => c.choices[0].delta.reasoning_content ?? '').join(''), 'Two options.');
        assert.deepEqual(fake.asks.map((rec) => [rec.dialect, rec.model]), [[dialect, 'gpt-5.2'], [dialect, 'claude-4-5-haiku'], [dialect, 'gpt-5.2']]);
    });

scenario('an answer in packets of one byte', async (t) => {
    const { fake, sdk } = await pair(t, { fake: { split: 1 } });
    fake.always(say.answer({ reasoning: ['hm é'], pieces: ['世界 ', '🌍'] }));
    const answer = await sdk.chat.completions.create({ model: 'gpt-5.2', messages: ask('x') });
    assert.equal(answer.choices[0].message.content, '世界 🌍');
});

scenario('every piece goes out before the next one is there', async (t) => {
    const { fake, sdk } = await pair(t);
    const pieces = ['Sorry', ', I couldn’t', ' be gladder', ' to help.'];
    const steps = say.lockstep(pieces);
    fake.next(steps);
    steps.confirm(); // the first two may be the beginning of a failure
    steps.confirm();
    const stream = await sdk.chat.completions.create({ model: 'gpt-5.2', messages: ask('x'), stream: true });
    let text = '';
    for await (const chunk of stream) {
        const piece = chunk.choices[0]?.delta.content ?? '';
        text += piece;
        if (piece) steps.confirm();
    }
    assert.equal(text, pieces.join(''));
});

// ---- What is asked ----

scenario('system text, history, roles', async (t) => {
    const { fake, sdk } = await pair(t);
    await sdk.chat.completions.create({
        model: 'gpt-5.2',
        messages: [{ role: 'developer', content: 'SPEAK-LATIN' }, { role: 'user', content: 'FIRST' }, { role: 'assistant', content: 'ANSWER' }, { role: 'user', content: [{ type: 'text', text: 'SECOND' }] }],
    });
    const { messages, user_s_input, project_id } = fake.asks[0].json;
    assert.deepEqual(messages.map((m) => [m.role, m.content]), [['system', 'SPEAK-LATIN'], ['user', 'FIRST'], ['assistant', 'ANSWER'], ['user', 'SECOND']]);
    assert.equal(user_s_input, 'SECOND');
    assert.equal(project_id, null);
});

scenario('-search: sources as annotations, as links, what is said before the search is no answer', async (t) => {
    for (const [citations, annotations, links] of [['annotations', 2, false], ['links', 0, true], ['both', 2, true], ['none', 0, false]]) {
        const { fake, sdk } = await pair(t, { provider: { 'x.citations': citations } });
        const sources = [{ title: 'One', link: 'https://one.example/a' }, { url: 'https://two.example/' }, { url: 'https://one.example/a' }, { url: 'javascript:no' }];
        fake.always(say.answer({ sources, preamble: 'Let me look.', pieces: ['It is ', 'Blue.'] }));
        const { message } = (await sdk.chat.completions.create({ model: 'gpt-5.2-search', messages: ask('news?') })).choices[0];
        assert.equal(message.annotations.length, annotations, citations);
        if (annotations) assert.deepEqual(message.annotations[0].url_citation, { url: 'https://one.example/a', title: 'One', start_index: 0, end_index: 0 });
        assert.equal(message.content, links ? 'It is Blue.\n\n1. [One](https://one.example/a)\n2. [https://two.example/](https://two.example/)' : 'It is Blue.');
        assert.equal(message.reasoning_content, 'Let me look.');
        assert.equal(fake.asks[0].json.ai_chat_enable_search, true);
        assert.equal(fake.asks[0].model, 'gpt-5.2');
        const final = await sdk.chat.completions.stream({ model: 'gpt-5.2-search', messages: ask('news?') }).finalChatCompletion();
        assert.equal(final.choices[0].message.content, message.content);
    }
});

scenario('names in no list go to the mixture, or as they are', async (t) => {
    for (const dialect of ['agent', 'copilot']) {
        const { fake, sdk } = await pair(t, { provider: { models: ['*'], 'x.dialect': dialect } });
        await sdk.chat.completions.create({ model: 'somebody-s-own', messages: ask('x') });
        const { json } = fake.asks[0];
        assert.deepEqual(json.moa_models ?? json.extra_data.models, ['gpt-5.1-low', 'claude-sonnet-4-5', 'gemini-3-pro-preview']);
    }
    const { fake, sdk } = await pair(t, { provider: { models: ['*'], 'x.unknown_models': 'forward' } });
    await sdk.chat.completions.create({ model: 'deepseek-next-search', messages: ask('x') });
    assert.equal(fake.asks[0].model, 'deep-seek-next');
    assert.equal(fake.asks[0].json.ai_chat_enable_search, true);
});

scenario('another model than the one asked for is told', async (t) => {
    const { fake, gw, sdk } = await pair(t);
    const another = () => say.answer({ served: 'claude-sonnet-4-5-20250929' });
    fake.next(another(), say.answer({ served: 'gpt-5.2-2025-12-11' }), another());
    const { data, response } = await sdk.chat.completions.create({ model: 'gpt-5.2', messages: ask('x') }).withResponse();
    await gw.waitLog(/asked for model gpt-5\.2, but claude-sonnet-4-5-20250929 answered/);
    assert.equal(response.headers.get('x-chatmux-model'), 'claude-sonnet-4-5-20250929');
    assert.equal(data.served_model, 'claude-sonnet-4-5-20250929');
    assert.equal(data.model, 'gpt-5.2');
    const same = await sdk.chat.completions.create({ model: 'gpt-5.2', messages: ask('x') }).withResponse();
    assert.ok(!/but gpt-5\.2-2025/.test(gw.output), 'a date behind the name is the same model');
    assert.equal(same.response.headers.get('x-chatmux-model'), 'gpt-5.2');
    assert.equal(same.data.served_model, undefined);

    // the head of a stream is out by then: its last chunk has it
    const streamed = readChatStream((await request(gw, { body: chat('gpt-5.2', 'x', { stream: true }) })).bytes);
    assert.equal(streamed.chunks.find((chunk) => chunk.choices[0]?.finish_reason).served_model, 'claude-sonnet-4-5-20250929');
});

scenario('who answers for a name in no list is told in the head', async (t) => {
    const { gw } = await pair(t, { provider: { models: '*' } });
    for (const stream of [true, false]) {
        const answer = await request(gw, { body: chat('nobody-knows-it', 'x', { stream }) });
        assert.equal(answer.status, 200, answer.text);
        assert.equal(answer.headers['x-chatmux-model'], 'mixture-of-agents');
    }
});

scenario('its models are in the list', async (t) => {
    const { gw } = await pair(t);
    const ids = (await request(gw, { path: '/v1/models' })).json.data.map((m) => m.id);
    for (const id of ['gpt-5.2', 'claude-haiku-4-5', 'deepseek-r1', 'mixture-of-agents', 'nano-banana-pro', 'dall-e-3', 'gemini/veo3.1', 'fal-ai/bytedance-upscaler/upscale/video']) assert.ok(ids.includes(id), id);
    assert.equal(new Set(ids).size, ids.length);
});

// ---- Pictures and files ----

const PDF = Buffer.from('%PDF-1.7 not much of one');
const picture = (url) => ({ type: 'image_url', image_url: { url } });
const file = (type, bytes) => ({ type: 'file', file: { filename: 'x', file_data: `data:${type};base64,${bytes.toString('base64')}` } });

scenario('pictures go along, files are uploaded', async (t) => {
    const host = await startPublicHost(t);
    for (const dialect of ['agent', 'copilot']) {
        const { fake, sdk } = await pair(t, { provider: { 'x.dialect': dialect, allow_private_fetch: 'yes' } });
        const content = [
            { type: 'text', text: 'what is this?' },
            picture(`data:image/png;base64,${IMAGE_BYTES.toString('base64')}`),
            picture(`${host.base}/a.png`),
            picture(IMAGE_BYTES.toString('base64')), // as the gateway takes it that people come from
            file('application/pdf', PDF),
            file('text/plain', Buffer.from('a text')),
            file('application/pdf', IMAGE_BYTES), // what it is, its bytes tell
        ];
        const answer = await sdk.chat.completions.create({ model: 'gpt-5.2', messages: [{ role: 'user', content }, { role: 'assistant', content: 'A dot.' }, { role: 'user', content: [picture(`data:image/png;base64,${IMAGE_BYTES.toString('base64')}`)] }] });
        assert.equal(answer.choices[0].message.content, 'Blue');
        const { messages } = fake.asks[0].json;
        const first = messages[0].content;
        const kinds = first.map((p) => p.private_file?.type ?? p.type);
        const expected = ['image_url', 'image_url', 'image_url', 'application/pdf', 'text/plain', 'image_url'];
        assert.deepEqual(kinds, dialect === 'agent' ? [...expected, 'text'] : [...expected, 'image_url', 'text']);
        assert.equal(first[1].image_url.url, `data:image/jpeg;base64,${IMAGE_BYTES.toString('base64')}`);
        assert.deepEqual([...fake.files.values()].map((f) => f.bytes.toString()), [PDF.toString(), 'a text']);
        if (dialect === 'agent') assert.deepEqual(messages.map((m) => m.content.length), [7, 'A dot.'.length, 1]);
        assert.equal(host.requests.at(-1).headers.cookie, undefined);
    }
});

scenario('addresses of clients lead outside only', async (t) => {
    const host = await startPublicHost(t);
    const { fake, gw } = await pair(t);
    const refused = await request(gw, { body: { model: 'gpt-5.2', messages: [{ role: 'user', content: [picture(`${host.base}/a.png`)] }] } });
    assert.equal(refused.status, 400, refused.text);
    assert.equal(refused.error.code, 'invalid_image_url');
    const byId = await request(gw, { body: { model: 'gpt-5.2', messages: [{ role: 'user', content: [{ type: 'file', file: { file_id: 'file-1' } }] }] } });
    assert.equal(byId.status, 400, byId.text);
    assert.equal(host.requests.length + fake.requests.length, 0);
});

scenario('a file in a conversation that has to be asked anew', async (t) => {
    const { fake, gw } = await pair(t, { fake: { sessions: [session(1)], strict: false }, provider: { 'x.continue': 'thread' } });
    const first = [{ role: 'user', content: [{ type: 'text', text: 'read it' }, file('application/pdf', PDF)] }];
    const second = [...first, { role: 'assistant', content: 'Blue' }, ...ask('more')];
    await talk(gw, CLIENT_KEY, first);
    await talk(gw, CLIENT_KEY, second);
    assert.deepEqual([fake.asks[1].json.messages.length, fake.files.size], [1, 1]);
    fake.projects.get(fake.asks[0].project).deleted = true;
    await talk(gw, CLIENT_KEY, second);
    assert.deepEqual([fake.asks[2].json.messages.length, fake.asks[3].json.messages.length, fake.files.size], [1, 3, 2]);
});

// ---- Accounts ----

scenario('the forms in which a cookie is given, and what the site sets besides', async (t) => {
    for (const form of [(v) => v, (v) => `session_id=${v}`, (v) => `c1=x; session_id=${v}; __cf_bm=old`]) {
        const { fake, gw } = await pair(t, { fake: { sessions: [session(7)] }, provider: { credentials: [form(session(7))] } });
        fake.setCookie = (rec) => (rec.dialect ? [] : ['__cf_bm=fresh; path=/; Max-Age=1800; HttpOnly', 'session_id=; Max-Age=0', 'session_id=another; Max-Age=1800', 'gone=1; Max-Age=0']);
        assert.equal((await request(gw, { body: chat('gpt-5.2') })).status, 200);
        fake.cookies = { __cf_bm: 'fresh' };
        assert.equal((await request(gw, { body: chat('gpt-5.2') })).status, 200);
        const sent = fake.asks.at(-1).headers.cookie;
        assert.equal(sent.includes('c1=x'), form('').includes('c1'));
        assert.ok(!/gone/.test(sent) && !/old/.test(sent), sent);
        assert.ok(!gw.output.includes(session(7)));
    }
});

scenario('an account that is not logged in: the other one answers', async (t) => {
    const { fake, gw } = await pair(t, { fake: { sessions: [session(2)], strict: false }, provider: { credentials: [session(1), session(2)] } });
    for (let i = 0; i < 4; i++) assert.equal((await request(gw, { body: chat('gpt-5.2') })).status, 200);
    assert.equal(fake.refusals.length, 1, 'the stale cookie was tried again');
});

// Sign -> how the client sees it when every account says so, and what the log says of the account.
const CATALOGUE = [
    ['too often (429)', say.status(429, 'Rate limit exceeded cf1'), 429, 'rate_limit_exceeded', /cooling for 600 s/],
    ['too often (200)', say.status(200, 'Rate limit exceeded cf2'), 429, 'rate_limit_exceeded', /cooling for 600 s/],
    ['too quickly', say.status(429, 'You are sending requests too quickly'), 429, 'rate_limit_exceeded', /cooling for 600 s/],
    ['429 without a word', say.status(429, ''), 429, 'rate_limit_exceeded', /cooling for 30 s/],
    ['a sentence about a limit', say.sentence('You are sending messages too quickly.'), 429, 'rate_limit_exceeded', /cooling for 600 s/],
    ['no credit', say.sentence("You've used all your credits."), 429, 'insufficient_quota', /exhausted for 86400 s/],
    ['no credit, in Chinese', say.sentence('积分已用完'), 429, 'insufficient_quota', /exhausted for 86400 s/],
    ['a window', say.limit({ value: 'AI Chat [5-hour limit](/x) reached.' }), 429, 'rate_limit_exceeded', /cooling for 1800 s/],
    ['not logged in (401)', say.notLogin(), 502, 'upstream_auth', /needs_login/],
    ['not logged in (200)', say.notLogin(200), 502, 'upstream_auth', /needs_login/],
    ['not logged in (403)', say.notLogin(403), 502, 'upstream_auth', /disabled/],
    // about the address: nobody else behind it is asked, and all of them rest
    ['challenge', say.challenge(), 503, 'verification_required', /genspark#2: ok -> cooling for 60 s/, 1],
    ['blocked', say.blocked(), 503, 'verification_required', /genspark#2: ok -> cooling for 3600 s/, 1],
    ['out of service', say.outOfService(), 502, 'upstream_error', null],
    ['500', say.status(500, 'Internal Server Error'), 502, 'upstream_error', null],
    ['503', say.status(503, '<html>busy</html>'), 502, 'upstream_error', null],
    ['overloaded', say.sentence('Server overloaded, please try again later.'), 502, 'upstream_error', null],
    ['canned failure', say.sentence("Sorry, I couldn't produce a response this turn."), 502, 'upstream_error', null],
    ['canned failure under a model’s name', say.sentence("Sorry, I couldn't produce a response this turn.", { served: 'gpt-5.2' }), 502, 'upstream_error', null],
    ['empty answer', say.answer({ pieces: [] }), 502, 'upstream_error', null],
    ['nothing but the start', say.cut([]), 502, 'upstream_error', null],
    ['error event', async (rec) => {
        const w = rec.openStream();
        await w.start();
        await w.event({ type: 'error', error: { message: 'boom' } });
        rec.over();
        rec.res.end();
    }, 502, 'upstream_error', null],
];

for (const stream of [true, false])
    scenario(`failures of the catalogue, ${stream ? 'streamed' : 'whole'}`, { timeout: 120_000 }, async (t) => {
        for (const [what, behave, status, code, state, asks = 2] of CATALOGUE) {
            const { fake, gw } = await pair(t);
            fake.always(behave);
            const answer = await request(gw, { body: chat('gpt-5.2', 'x', { stream }) });
            assert.equal(answer.status, status, `${what}: ${answer.text}`);
            assert.equal(answer.error.code, code, `${what}: ${answer.text}`);
            assert.ok(!/<html/i.test(answer.text));
            assert.equal(fake.asks.length, asks, `${what}: how many accounts were asked`);
            if (asks === 1) {
                assert.ok([60, 3600].includes(Number(answer.headers['retry-after'])), what);
                const next = await request(gw, { body: chat('gpt-5.2', 'x', { stream }) });
                assert.equal(next.status, 429, `${what}: ${next.text}`);
                assert.equal(fake.asks.length, 1, `${what}: asked again at once`);
            }
            if (state) await gw.waitLog(state, `${what}: ${state}`);
            await gw.kill();
        }
    });

scenario('one that fails is not noticed when another account answers', async (t) => {
    const { fake, gw } = await pair(t);
    for (const [what, behave] of CATALOGUE.filter(([, , status]) => status === 502 && !/login/.test(String(status)))) {
        if (/logged in/.test(what)) continue;
        fake.next(behave);
        const answer = await request(gw, { body: chat('gpt-5.2', what, { stream: true }) });
        assert.equal(answer.status, 200, `${what}: ${answer.text}`);
        assert.equal(readChatStream(answer.bytes).text, 'Blue', what);
        assert.equal(answer.headers['x-chatmux-attempts'], '2', what);
        if (fake.asks.length > 4) break; // three failures within a minute cool an account
    }
});

scenario('refused requests are the client’s', async (t) => {
    for (const behave of [say.status(422, { detail: [] }), say.status(400, 'bad request cf')]) {
        const { fake, gw } = await pair(t);
        fake.always(behave);
        assert.equal((await request(gw, { body: chat('gpt-5.2') })).status, 400);
        assert.equal(fake.asks.length, 1);
    }
    const { fake, gw } = await pair(t, { provider: { 'x.bad_request_cf': 'expired' } });
    fake.next(say.status(400, 'bad request cf'));
    assert.equal((await request(gw, { body: chat('gpt-5.2') })).status, 200);
});

scenario('an answer that talks about limits is an answer', async (t) => {
    const { fake, sdk } = await pair(t);
    for (const text of ['The rate limit is 60 requests; asking too quickly gives 429. CREDIT_EXHAUSTED', "Sorry, I couldn't say."]) {
        fake.next(say.answer({ pieces: [...text].map((c) => c) }));
        const answer = await sdk.chat.completions.create({ model: 'gpt-5.2', messages: ask('x') });
        assert.equal(answer.choices[0].message.content, text);
    }
    const long = `Sorry, I couldn't produce a response${' and more'.repeat(40)}`;
    fake.next(say.answer({ pieces: [long.slice(0, 100), long.slice(100)], served: null }));
    assert.equal((await sdk.chat.completions.create({ model: 'gpt-5.2', messages: ask('x') })).choices[0].message.content, long);
});

scenario('a stream that breaks off', async (t) => {
    const { fake, gw } = await pair(t);
    fake.always(say.cut(['half ']));
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('gpt-5.2', 'x', { stream: true })));
    assert.equal((await raw.head()).status, 200);
    const { bytes, clean } = await raw.drainStream();
    const got = readChatStream(bytes);
    assert.equal(got.text, 'half ');
    assert.ok(got.error);
    assert.equal(clean, false);
    assert.equal((await request(gw, { body: chat('gpt-5.2') })).status, 502);
});

scenario('the copilot dialect is retired: the same account is asked in the other one', async (t) => {
    const { fake, sdk, gw } = await pair(t, { provider: { 'x.dialect': 'copilot', 'x.delete_chat': 'yes' } });
    fake.onAsk((_, rec) => (rec.dialect === 'copilot' ? say.retired() : null));
    const { data, response } = await sdk.chat.completions.create({ model: 'gpt-4o', messages: ask('x') }).withResponse();
    assert.equal(data.choices[0].message.content, 'Blue');
    assert.equal(response.headers.get('x-chatmux-attempts'), '1');
    assert.deepEqual(fake.asks.map((rec) => rec.dialect), ['copilot', 'agent']);
    assert.equal(fake.asks[0].session, fake.asks[1].session);
    await sdk.chat.completions.create({ model: 'gpt-4o', messages: ask('x') });
    await until(() => fake.undeleted().length === 0, 'every chat to be deleted');
    assert.ok(!/cooling|needs_login/.test(gw.output));
});

scenario('the copilot dialect: used-up free quota', async (t) => {
    const { fake, gw } = await pair(t, { provider: { 'x.dialect': 'copilot' } });
    fake.always(say.quota());
    const answer = await request(gw, { body: chat('gpt-4o') });
    assert.equal(answer.error.code, 'insufficient_quota');
    await gw.waitLog(/exhausted for 86400 s/);
});

const ADMIN = 'sk-admin-genspark-1';
const api = (gw, method, path) => request(gw, { method, path: `/admin/api${path}`, key: ADMIN });

scenario('checking an account tells what it has left', async (t) => {
    const { fake, gw } = await pair(t, { fake: { sessions: [session(1), session(2), session(3)], strict: false }, config: { auth: { admin_secret: ADMIN } }, provider: { credentials: [session(1), session(2), session(3), session(4)] } });
    const reads = [0, 7];
    fake.credits.set(session(1), 120).set(session(2), 0).set(session(3), () => reads.shift());
    const accounts = (await api(gw, 'GET', '/credentials')).json.data;
    const of = (n) => accounts.find((c) => c.hint.endsWith(session(n).slice(-4)));
    const check = async (n) => [(await api(gw, 'POST', `/credentials/${of(n).id}/check`)).json, (await api(gw, 'GET', `/credentials/${of(n).id}`)).json];
    const [fine, one] = await check(1);
    assert.equal(fine.ok, true, JSON.stringify(fine));
    assert.deepEqual(one.quota, { credit: 120 });
    const [empty, two] = await check(2);
    assert.equal(empty.ok, false);
    assert.match(empty.message, /no credit left/);
    assert.equal(two.state, 'exhausted');
    const [again, three] = await check(3);
    assert.equal(again.ok, true, 'nothing left was believed at once');
    assert.deepEqual(three.quota, { credit: 7 });
    const [gone, four] = await check(4);
    assert.equal(gone.ok, false);
    assert.equal(four.state, 'needs_login');
});

// ---- Chats ----

scenario('chats are deleted afterwards, whatever happened', async (t) => {
    for (const create of ['yes', 'no']) {
        const { fake, gw, sdk } = await pair(t, { provider: { 'x.delete_chat': 'yes', 'x.create_chat': create } });
        assert.equal((await sdk.chat.completions.create({ model: 'gpt-5.2', messages: ask('x') })).choices[0].message.content, 'Blue');
        await sdk.chat.completions.stream({ model: 'gpt-5.2', messages: ask('x') }).finalChatCompletion();
        fake.next(say.sentence('Server overloaded, please try again later.'), say.cut(['half ']));
        await request(gw, { body: chat('gpt-5.2') });
        fake.next(say.hang());
        const raw = await connect(t, gw);
        raw.send(rawChat(chat('gpt-5.2', 'x', { stream: true })));
        await until(() => fake.asks.length === 5, 'the fifth question');
        raw.close();
        await until(() => fake.projects.size === 5 && fake.undeleted().length === 0, `every chat to be deleted (${fake.undeleted().length} of ${fake.projects.size} left)`);
        await until(() => [...fake.projects.values()].some((p) => p.aborted), 'the answer to be stopped');
        assert.equal(fake.of('/api/project/create').length, create === 'yes' ? 5 : 0);
    }
});

scenario('a chat that could not be deleted goes with a later answer, after a restart too', async (t) => {
    const { fake, gw } = await pair(t, { fake: { sessions: [session(1)] }, provider: { 'x.delete_chat': 'yes' } });
    fake.failDeletes = 2;
    for (let i = 0; i < 2; i++) assert.equal((await request(gw, { body: chat('gpt-5.2') })).status, 200);
    await until(() => fake.failDeletes === 0, 'both deletions to fail');
    fake.always(say.hang());
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('gpt-5.2', 'x', { stream: true })));
    await until(() => fake.asks.length === 3, 'the third question');
    await new Promise((done) => setTimeout(done, 400)); // the store writes in groups, every 250 ms
    await gw.restart({ how: 'SIGKILL' }); // while it is being answered
    fake.always(say.answer());
    await request(gw, { body: chat('gpt-5.2') });
    await until(() => fake.projects.size === 4 && fake.undeleted().length === 0, 'all that was left to be deleted');
});

scenario('a client that leaves while its chat is being made leaves none behind', async (t) => {
    const { fake, gw } = await pair(t, { provider: { 'x.delete_chat': 'yes' } });
    fake.slowCreate = 300;
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('gpt-5.2', 'x', { stream: true })));
    await until(() => fake.of('/api/project/create').length === 1, 'the chat to be asked for');
    raw.close();
    await until(() => fake.projects.size === 1 && fake.undeleted().length === 0, 'the chat to be made and deleted');
    assert.equal(fake.asks.length, 0);
});

scenario('a stop waits for what is being deleted, and then ends', async (t) => {
    const { fake, gw } = await pair(t, { provider: { 'x.delete_chat': 'yes' } });
    fake.slowDelete = 400;
    assert.equal((await request(gw, { body: chat('gpt-5.2') })).status, 200);
    gw.signal('SIGTERM');
    await gw.waitExit(5000);
    assert.equal(gw.exit.code, 0);
    assert.equal(fake.undeleted().length, 0);
});

scenario('a client that leaves: the answer is stopped, the chat stays', async (t) => {
    for (const abort of ['yes', 'no']) {
        const { fake, gw } = await pair(t, { provider: { 'x.abort': abort } });
        fake.always(say.hang());
        const raw = await connect(t, gw);
        raw.send(rawChat(chat('gpt-5.2', 'x', { stream: true })));
        await until(() => fake.projects.size === 1, 'the question');
        await new Promise((done) => setTimeout(done, 100));
        raw.close();
        await until(() => fake.asks[0].isGone, 'the stream to be closed');
        if (abort === 'yes') await until(() => [...fake.projects.values()][0].aborted, 'the answer to be stopped');
        assert.equal(fake.of('/api/agent/ask_abort').length, abort === 'yes' ? 1 : 0);
        assert.equal(fake.undeleted().length, 1);
    }
});

const KEYS = ['sk-key-of-ann-0001', 'sk-key-of-bob-0002'];
const talk = (gw, key, messages, model = 'gpt-5.2') => request(gw, { key, body: { model, messages } }).then((r) => (assert.equal(r.status, 200, r.text), r.json.choices[0].message));

scenario('a conversation goes on in its own chat', async (t) => {
    const { fake, gw } = await pair(t, { provider: { 'x.continue': 'thread', 'x.delete_chat': 'yes' }, config: { auth: { keys: KEYS } } });
    const first = [{ role: 'system', content: 'S' }, ...ask('one')];
    const answer = await talk(gw, KEYS[0], first);
    const second = [...first, { role: 'assistant', content: answer.content }, ...ask('two')];
    await talk(gw, KEYS[0], second);
    await talk(gw, KEYS[1], second); // somebody else with the same words
    const [a, b, c] = fake.asks;
    assert.equal(a.json.project_id, null);
    assert.equal(b.project, a.project);
    assert.deepEqual(b.json.messages.map((m) => m.content), ['two']);
    assert.equal(c.json.project_id, null);
    assert.equal(c.json.messages.length, 4);
    assert.equal(fake.of('/api/project/delete').length, 0, 'a chat that may go on was deleted');
});

scenario('the last chat of client and model goes on', async (t) => {
    for (const dialect of ['agent', 'copilot']) {
        const { fake, gw } = await pair(t, { fake: { sessions: [session(1)] }, provider: { 'x.continue': 'model', 'x.dialect': dialect }, config: { auth: { keys: KEYS } } });
        await talk(gw, KEYS[0], ask('one'));
        await talk(gw, KEYS[0], [...ask('one'), { role: 'assistant', content: 'Blue' }, ...ask('two')]);
        await talk(gw, KEYS[1], ask('three'));
        await talk(gw, KEYS[0], ask('four'), 'o3-pro');
        const [a, b, c, d] = fake.asks.map((rec) => rec.project);
        assert.equal(b, a);
        assert.equal(new Set([a, c, d]).size, 3, 'other clients and models have chats of their own');
        assert.equal(fake.asks[1].json.messages.length, dialect === 'agent' ? 1 : 3);
    }
});

scenario('a chat that is gone, or another account’s, is asked anew once', async (t) => {
    for (const gone of [true, false]) {
        const { fake, gw } = await pair(t, { fake: { sessions: [session(1)], strict: false }, provider: { 'x.continue': 'model' } });
        await talk(gw, CLIENT_KEY, ask('one'));
        if (gone) fake.projects.get(fake.asks[0].project).deleted = true;
        else fake.projects.get(fake.asks[0].project).session = session(9);
        const second = [...ask('one'), { role: 'assistant', content: 'Blue' }, ...ask('two')];
        assert.equal((await talk(gw, CLIENT_KEY, second)).content, 'Blue');
        assert.equal(fake.asks.length, 3);
        assert.equal(fake.asks[2].json.project_id, null);
        assert.equal(fake.asks[2].json.messages.length, 3, 'the new chat hears everything');
        await talk(gw, CLIENT_KEY, ask('three'));
        assert.equal(fake.asks[3].project, fake.asks[2].project);
    }
});

scenario('a model bound to a chat: one client, the account that owns it, never deleted', async (t) => {
    const bound = '3cdcc000-0000-4000-8000-000000000001';
    const make = async (more) => {
        const p = await pair(t, { provider: { 'x.model_chat_map': `gpt-5.2=${bound}`, 'x.delete_chat': 'yes', ...more }, fake: { strict: false }, config: { auth: { keys: KEYS } } });
        p.fake.projects.set(bound, { session: session(1), type: 'ai_chat', deleted: false, kept: true });
        return p;
    };
    const { fake, gw } = await make();
    for (let i = 0; i < 6; i++) await talk(gw, KEYS[0], ask(`ann ${i}`));
    const inBound = (list) => list.filter((rec) => rec.json.project_id === bound);
    assert.ok(inBound(fake.asks).length >= 1);
    assert.ok(inBound(fake.asks).filter((rec) => rec.session === session(2)).length <= 1, 'the account that does not own it was asked for it again');
    const before = inBound(fake.asks).length;
    for (let i = 0; i < 4; i++) await talk(gw, KEYS[1], ask(`bob ${i}`));
    assert.equal(inBound(fake.asks).length, before, 'bob goes on in ann’s chat');
    await gw.restart(); // whose it is, is not forgotten
    for (let i = 0; i < 4; i++) await talk(gw, KEYS[1], ask(`bob again ${i}`));
    assert.equal(inBound(fake.asks).length, before, 'bob goes on in ann’s chat after a restart');
    await until(() => fake.undeleted().join() === bound, 'all chats but the bound one to be deleted');

    const shared = await make({ 'x.model_chat_shared': 'yes' });
    for (const [n, key] of KEYS.entries()) for (let i = 0; i < 6; i++) await talk(shared.gw, key, ask(`${['ann', 'bob'][n]} ${i}`));
    const inShared = inBound(shared.fake.asks);
    assert.ok(inShared.some((rec) => /ann/.test(rec.json.user_s_input)) && inShared.some((rec) => /bob/.test(rec.json.user_s_input)));
});

// ---- The operator's verification service ----

scenario('each question carries a token of its own', async (t) => {
    const verifier = await startVerifier(t);
    for (const dialect of ['agent', 'copilot']) {
        const { sdk } = await pair(t, { fake: { verifier }, provider: { 'x.verifier_url': `${verifier.url}/`, 'x.dialect': dialect } });
        for (let i = 0; i < 3; i++) await sdk.chat.completions.create({ model: 'gpt-5.2', messages: ask('x') });
    }
    assert.equal(verifier.asked.length, 6);
    assert.equal(verifier.issued.size, 0);
    assert.match(verifier.asked[0].headers.cookie, /^session_id=/);

    const { fake, sdk } = await pair(t, { fake: { verifier }, provider: { 'x.verifier_url': verifier.url, 'x.dialect': 'copilot', 'x.verifier_required': 'no' } });
    fake.onAsk((_, rec) => {
        verifier.answer = [503, 'down'];
        return rec.dialect === 'copilot' ? say.retired() : null;
    });
    await sdk.chat.completions.create({ model: 'gpt-5.2', messages: ask('x') });
    assert.equal(fake.asks[1].json.g_recaptcha_token, '', 'a token was used twice');
});

scenario('a verification service that fails: told, or done without', async (t) => {
    const verifier = await startVerifier(t);
    for (const answer of [[200, { code: 500, message: 'the solver is asleep' }], [503, 'down'], [200, 'no JSON'], [200, { code: 200 }]]) {
        verifier.answer = answer;
        const strict = await pair(t, { fake: { verifier }, provider: { 'x.verifier_url': verifier.url } });
        const refused = await request(strict.gw, { body: chat('gpt-5.2') });
        assert.equal(refused.status, 503, refused.text);
        assert.equal(refused.error.code, 'verification_required');
        if (answer[1].message) assert.match(refused.error.message, /the solver is asleep/);
        assert.equal(strict.fake.asks.length, 0);
        const lenient = await pair(t, { fake: { verifier }, provider: { 'x.verifier_url': verifier.url, 'x.verifier_required': 'no' } });
        assert.equal((await request(lenient.gw, { body: chat('gpt-5.2') })).status, 200);
        assert.equal(lenient.fake.asks[0].json.g_recaptcha_token, '');
    }
});

scenario('a verification service with a certificate of its own making', async (t) => {
    const verifier = await startVerifier(t, { tls: true });
    const checked = await pair(t, { fake: { verifier }, provider: { 'x.verifier_url': verifier.url } });
    const refused = await request(checked.gw, { body: chat('gpt-5.2') });
    assert.equal(refused.status, 503, refused.text);
    assert.equal(refused.headers['retry-after'], '60');
    assert.equal(verifier.asked.length, 0);
    const { fake, gw } = await pair(t, { fake: { verifier }, provider: { 'x.verifier_url': verifier.url, 'x.verifier_tls_check': 'no' } });
    assert.equal((await request(gw, { body: chat('gpt-5.2') })).status, 200);
    assert.ok(fake.asks[0].json.g_recaptcha_token.length > 0);
});

// ---- Many at once ----

for (const [pace, gapMs, maxWait, spread] of [['quick', 20, '5s', 300], ['slow', 600, '1s', 299]])
    scenario(`300 ${pace} requests over 20 accounts: never more than two at once of one`, { timeout: 120_000 }, async (t) => {
        const sessions = Array.from({ length: 20 }, (_, i) => session(i + 1));
        const { fake, gw } = await pair(t, { fake: { sessions }, provider: { 'x.delete_chat': 'yes' }, config: { retry: { retries: 0, max_wait: maxWait } } });
        fake.always(say.answer({ pieces: ['Bl', 'ue'], gapMs }));
        const answers = await Promise.all(Array.from({ length: 300 }, (_, i) => request(gw, { body: chat('gpt-5.2', `question ${i}`, { stream: i % 2 === 0 }), timeoutMs: 90_000 })));
        const served = answers.filter((a) => a.status === 200);
        for (const a of answers) {
            if (a.status === 200) continue;
            assert.equal(a.status, 429, a.text);
            assert.ok(Number(a.headers['retry-after']) > 0, 'without retry-after');
        }
        assert.ok(served.length >= 40 && served.length <= spread, `${served.length} were served`);
        assert.ok(Math.max(...fake.most.values()) <= 2, JSON.stringify([...fake.most.values()]));
        assert.equal(fake.most.size, 20, 'not every account was used');
        for (const [i, a] of answers.entries()) if (a.status === 200) assert.equal(i % 2 ? a.json.choices[0].message.content : readChatStream(a.bytes).text, 'Blue');
        await until(() => fake.undeleted().length === 0, `every chat to be deleted: ${fake.undeleted().length} of ${fake.projects.size} left`, 15_000);
        t.diagnostic(`${served.length} of 300 served, at most ${Math.max(...fake.most.values())} at once of an account`);
    });
