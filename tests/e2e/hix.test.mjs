// hix through the gateway: a cookie platform behind the OpenAI surface.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { chat, CLIENT_KEY, request, scenario, startGateway } from '../lib/gateway.mjs';
import { connect, rawChat, readChatStream } from '../lib/raw.mjs';
import { say, sessionToken, startFakeHix } from '../lib/fake_hix.mjs';

async function pair(t, { fake: fakeOptions, provider, config } = {}) {
    const fake = await startFakeHix(t, fakeOptions);
    const gw = await startGateway(t, {
        config: { retry: { retries: 0 }, 'provider hix': { type: 'hix', base_url: fake.base, credentials: fake.sessions, ...provider }, ...config },
    });
    return { fake, gw, sdk: new OpenAI({ baseURL: gw.base, apiKey: CLIENT_KEY, maxRetries: 0 }) };
}

const ask = (text) => [{ role: 'user', content: text }];

for (const framing of ['data', 'events'])
    scenario(`an answer, plain and streamed, ${framing} framing`, async (t) => {
        const { fake, sdk } = await pair(t, { fake: { framing } });
        const pieces = ['Bl', 'ue é', '世', '🌍', '.'];
        fake.always(say.answer({ pieces }));
        const { data, response } = await sdk.chat.completions.create({ model: 'deepseek-v3', messages: ask('Name a colour.') }).withResponse();
        assert.equal(data.choices[0].message.content, 'Blue é世🌍.');
        assert.equal(data.choices[0].finish_reason, 'stop');
        assert.equal(data.model, 'deepseek-v3');
        assert.equal(response.headers.get('x-chatmux-provider'), 'hix');
        assert.ok(data.usage.total_tokens > 0);

        const final = await sdk.chat.completions.stream({ model: 'hix/gpt-4o', messages: ask('Name a colour.') }).finalChatCompletion();
        assert.equal(final.choices[0].message.content, 'Blue é世🌍.');
        const asked = fake.of('/api/hix/chat').map((rec) => rec.json);
        assert.equal(asked[0].question, 'Name a colour.');
        assert.equal(asked[0].fileUrl, '');
        assert.notEqual(asked[0].chatId, asked[1].chatId);
        const bots = fake.of('/api/trpc/hixChat.createChat').map((rec) => rec.json[0].json.botId);
        assert.deepEqual(bots, [85427, 5]);
    });

scenario('reasoning comes as reasoning_content, before the text', async (t) => {
    const { fake, gw } = await pair(t);
    fake.always(say.answer({ reasoning: ['Two ', 'options.'], pieces: ['Blue'] }));
    const plain = (await request(gw, { body: chat('deepseek-r1') })).json.choices[0].message;
    assert.equal(plain.reasoning_content, 'Two options.');
    assert.equal(plain.content, 'Blue');
    const { chunks, text } = readChatStream((await request(gw, { body: chat('deepseek-r1', 'x', { stream: true }) })).bytes);
    assert.equal(text, 'Blue');
    assert.equal(chunks.map((c) => c.choices[0].delta.reasoning_content ?? '').join(''), 'Two options.');
});

scenario('an answer in packets of one byte', async (t) => {
    const { fake, sdk } = await pair(t, { fake: { framing: 'events', split: 1 } });
    fake.always(say.answer({ reasoning: ['hm é'], pieces: ['世界 ', '🌍'] }));
    const answer = await sdk.chat.completions.create({ model: 'deepseek-v3', messages: ask('x') });
    assert.equal(answer.choices[0].message.content, '世界 🌍');
});

scenario('-search in the model name', async (t) => {
    const { fake, sdk } = await pair(t);
    const answer = await sdk.chat.completions.create({ model: 'gpt-4o-search', messages: ask('news?') });
    assert.equal(answer.choices[0].message.content, 'Blue');
    const { json } = fake.of('/api/hix/chat')[0];
    assert.equal(json.search, true);
    assert.equal(json.searchType, 'internet');
});

scenario('links of a searched answer are annotations, too', async (t) => {
    const { fake, sdk } = await pair(t);
    const text = 'Ödland [Ä news [1]](https://a.test/x_(y)?q=1) and ![pic](https://p.test/) and [again](https://a.test/x_(y)?q=1), [b](http://b.test/), [no](ftp://c.test/) [open](https://d.test/ x)';
    fake.always(say.answer({ pieces: [...text] }));
    for (const stream of [false, true]) {
        const body = { model: 'gpt-4o-search', messages: ask('news?') };
        const cited = [];
        let content = '';
        if (stream)
            for await (const chunk of await sdk.chat.completions.create({ ...body, stream })) {
                content += chunk.choices[0]?.delta.content ?? '';
                cited.push(...(chunk.choices[0]?.delta.annotations ?? []));
            }
        else {
            const { message } = (await sdk.chat.completions.create(body)).choices[0];
            content = message.content;
            cited.push(...message.annotations);
        }
        assert.equal(content, text);
        assert.deepEqual(cited.map((a) => [a.url_citation.title, a.url_citation.url]), [['Ä news [1]', 'https://a.test/x_(y)?q=1'], ['b', 'http://b.test/']]);
        const [{ url_citation: first }] = cited;
        assert.equal([...content].slice(first.start_index, first.end_index).join(''), '[Ä news [1]](https://a.test/x_(y)?q=1)');
    }
    const { message } = (await sdk.chat.completions.create({ model: 'gpt-4o', messages: ask('x') })).choices[0];
    assert.deepEqual(message.annotations, []);
});

scenario('system prompt and history are part of the question', async (t) => {
    const { fake, sdk } = await pair(t);
    await sdk.chat.completions.create({
        model: 'deepseek-v3',
        messages: [{ role: 'system', content: 'SPEAK-LATIN' }, { role: 'user', content: 'FIRST-QUESTION' }, { role: 'assistant', content: 'FIRST-ANSWER' }, { role: 'user', content: 'SECOND-QUESTION' }],
    });
    const { question } = fake.of('/api/hix/chat')[0].json;
    for (const part of ['SPEAK-LATIN', 'FIRST-QUESTION', 'FIRST-ANSWER', 'SECOND-QUESTION']) assert.ok(question.includes(part), `${part} is lost: ${question}`);
    assert.ok(question.indexOf('FIRST-ANSWER') < question.indexOf('SECOND-QUESTION'));
});

scenario('a question beyond the limit of the model is the client’s error', async (t) => {
    const { fake, gw } = await pair(t);
    const long = await request(gw, { body: chat('deepseek-v3', 'é'.repeat(8001)) });
    assert.equal(long.status, 400, long.text);
    assert.equal(fake.requests.length, 0);
    const fits = await request(gw, { body: chat('deepseek-v3', '🌍'.repeat(8000)) });
    assert.equal(fits.status, 200, `characters are code points: ${fits.text}`);
});

scenario('a stale cookie: the other account answers', async (t) => {
    const stale = sessionToken('stale');
    const good = sessionToken('good');
    const { fake, gw } = await pair(t, { fake: { sessions: [good], strict: false }, provider: { credentials: [stale, good] } });
    for (let i = 0; i < 4; i++) {
        const answer = await request(gw, { body: chat('deepseek-v3') });
        assert.equal(answer.status, 200, answer.text);
    }
    assert.equal(fake.refusals.length, 1, 'the stale cookie was tried again');
    assert.ok(!gw.output.includes(stale) && !gw.output.includes(good));
});

scenario('the forms in which a cookie is given', async (t) => {
    const value = sessionToken('forms');
    for (const credential of [value, `__Secure-next-auth.session-token=${value}`, `_ga=1; __Secure-next-auth.session-token=${value}; theme=dark`]) {
        const { fake, gw } = await pair(t, { fake: { sessions: [value] }, provider: { credentials: [credential] } });
        const answer = await request(gw, { body: chat('deepseek-v3') });
        assert.equal(answer.status, 200, answer.text);
        const sent = fake.requests[0].headers.cookie;
        assert.ok(sent.includes(`__Secure-next-auth.session-token=${value}`), sent);
        assert.equal(sent.includes('theme=dark'), credential.includes('theme=dark'), 'what the operator pasted is kept');
    }
});

scenario('failures of createChat', async (t) => {
    for (const [what, behave, status, code] of [
        ['no credit', say.trpc(-32002, 'PAYMENT_REQUIRED', 402), [402, 429, 503], 'insufficient_quota'],
        ['limited', say.trpc(-32029, 'TOO_MANY_REQUESTS', 429), [429], 'rate_limit_exceeded'],
        ['not logged in', null, [502], null],
        ['server error', say.trpc(-32603, 'INTERNAL_SERVER_ERROR', 500), [502], null],
        ['challenge page', say.challenge(), [503], null],
        ['garbage', say.status(200, '[{"result":'), [502], null],
        ['no id', say.status(200, [{ result: { data: { json: {} } } }]), [502], null],
    ]) {
        const { fake, gw } = await pair(t, { fake: { strict: false } });
        if (behave) fake.onCreate(() => behave);
        else fake.sessions.length = 0; // neither the call nor the session knows them any more
        const answer = await request(gw, { body: chat('deepseek-v3', 'x', { stream: true }) });
        assert.ok(status.includes(answer.status), `${what}: ${answer.status} ${answer.text}`);
        const { error } = answer;
        if (code) assert.equal(error.code, code, what);
        assert.ok(!/<html/i.test(answer.text));
        assert.equal(fake.of('/api/hix/chat').length, 0);
        if (['no credit', 'limited', 'not logged in'].includes(what)) assert.equal(fake.of('/api/trpc/hixChat.createChat').length, 2, `${what}: the other account was not tried`);
        // about the address: nobody else behind it is asked
        if (what === 'challenge page') {
            assert.equal(fake.of('/api/trpc/hixChat.createChat').length, 1);
            assert.equal(answer.headers['retry-after'], '60');
            await gw.waitLog(/hix#2: ok -> cooling for 60 s/);
        }
    }
});

scenario('failures of the chat call move on to the other account', async (t) => {
    for (const behave of [say.status(429, { code: 'RATE_LIMIT_EXCEEDED' }), say.status(500, { message: 'oops' }), say.cut([])]) {
        const { fake, gw } = await pair(t);
        fake.next(behave);
        const answer = await request(gw, { body: chat('deepseek-v3', 'x', { stream: true }) });
        assert.equal(answer.status, 200, answer.text);
        assert.equal(readChatStream(answer.bytes).text, 'Blue');
        assert.equal(answer.headers['x-chatmux-attempts'], '2');
        const sessions = fake.of('/api/hix/chat').map((rec) => rec.session);
        assert.notEqual(sessions[0], sessions[1]);
    }
});

scenario('a stream without [DONE] was cut', async (t) => {
    const { fake, gw } = await pair(t);
    fake.always(say.cut(['half ']));
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('deepseek-v3', 'x', { stream: true })));
    assert.equal((await raw.head()).status, 200);
    const { bytes, clean } = await raw.drainStream();
    const got = readChatStream(bytes);
    assert.equal(got.text, 'half ');
    assert.ok(got.error);
    assert.equal(got.done, false);
    assert.equal(clean, false);
    const plain = await request(gw, { body: chat('deepseek-v3') });
    assert.equal(plain.status, 502, plain.text);
});

scenario('its models are in the list', async (t) => {
    const { gw } = await pair(t);
    const ids = (await request(gw, { path: '/v1/models' })).json.data.map((m) => m.id);
    for (const id of ['deepseek-r1', 'deepseek-v3', 'gpt-4o', 'claude-3-7-sonnet']) assert.ok(ids.includes(id), `${id} in ${ids}`);
});
