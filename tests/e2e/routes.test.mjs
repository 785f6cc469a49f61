// Routes: which target is tried first by each strategy, the way to a larger model, and providers that get nothing while they fail.
import assert from 'node:assert/strict';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { atEnd, chat, CLIENT_KEY, request, scenario, startGateway, until } from '../lib/gateway.mjs';
import { play, providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';
import { readChatStream } from '../lib/raw.mjs';

const ADMIN = 'admin-secret-4711';

/** Two providers, `one` and `two`, and the route "best" over both. */
async function pair(t, { route, one, two, config, keys = ['sk-up-1'] } = {}) {
    const fakes = [await startFakeOpenai(t, { keys }), await startFakeOpenai(t, { keys })];
    fakes[0].always(play.ok({ text: 'one' }));
    fakes[1].always(play.ok({ text: 'two' }));
    const gw = await startGateway(t, {
        config: {
            auth: { admin_secret: ADMIN, keys: [CLIENT_KEY] },
            retry: { retries: 0 },
            'provider one': providerFor(fakes[0], one),
            'provider two': providerFor(fakes[1], two),
            'model best': { targets: ['one/m1', 'two/m1'], ...route },
            ...config,
        },
    });
    const ask = async (model = 'best') => request(gw, { body: chat(model) });
    const said = async (model) => {
        const r = await ask(model);
        assert.equal(r.status, 200, r.text);
        return r.json.choices[0].message.content;
    };
    return { fakes, gw, ask, said };
}

scenario('least_busy: whoever has fewer answers under way', async (t) => {
    const { fakes, ask } = await pair(t, { route: { strategy: 'least_busy', targets: ['one/m1', 'two/m1 weight=3'] } });
    for (const fake of fakes) fake.always(play.after(1500, play.ok()));
    const answers = Array.from({ length: 8 }, () => ask());
    await until(() => fakes[0].requests.length + fakes[1].requests.length === 8);
    assert.deepEqual([fakes[0].requests.length, fakes[1].requests.length], [2, 6], 'by weight');
    for (const r of await Promise.all(answers)) assert.equal(r.status, 200);
});

scenario('fastest: the one that says something soonest, after both were tried', async (t) => {
    const { fakes, said } = await pair(t, { route: { strategy: 'fastest' } });
    fakes[0].always(play.after(400, play.ok({ text: 'one' })));
    const order = [];
    for (let i = 0; i < 12; i++) order.push(await said());
    assert.equal(order.filter((x) => x === 'one').length, 1, order.join(' '));
});

scenario('a prompt that is too long goes to the larger targets, once', async (t) => {
    const { fakes, ask, said } = await pair(t, { route: { targets: ['one/m1'], larger_targets: ['two/m1'] } });
    const tooLong = play.error(400, "This model's maximum context length is 8192 tokens.", { code: 'context_length_exceeded', param: 'messages' });
    fakes[0].always(tooLong);
    assert.equal(await said(), 'two');
    assert.equal((await ask()).headers['x-chatmux-provider'], 'two');
    fakes[1].always(tooLong);
    const r = await ask();
    assert.equal(r.status, 400);
    assert.equal(r.json.error.code, 'context_length_exceeded');
    assert.equal(fakes[1].requests.length, 3, 'asked once more and not again');
    assert.equal((await ask('one/m1')).status, 400, 'only the route leads there');
});

scenario('a provider that fails all the time gets nothing for a while; then one request decides', async (t) => {
    const { fakes, gw, ask, said } = await pair(t, {
        route: { strategy: 'priority' },
        keys: Array.from({ length: 30 }, (_, i) => `sk-up-${i}`),
        one: { breaker_attempts: 10 },
        config: { retry: { retries: 0, credentials: 1 } },
    });
    const state = async () => {
        const list = await (await fetch(`${gw.url}/admin/api/providers`, { headers: { authorization: `Bearer ${ADMIN}` } })).json();
        return list.data.find((p) => p.name === 'one').breaker;
    };
    fakes[0].always(play.error(500, 'oops', { type: 'server_error' }));
    for (let i = 0; i < 12; i++) await ask('one/m1');
    assert.equal(fakes[0].requests.length, 10, 'the last two were not sent');
    assert.equal(await state(), 'open');
    const refused = await ask('one/m1');
    assert.equal(refused.status, 503);
    assert.match(refused.json.error.message, /fails too often now/);
    assert.ok(Number(refused.headers['retry-after']) <= 10);
    assert.equal(await said('best'), 'two', 'the route goes on without it');
    assert.equal(fakes[0].requests.length, 10);
    const metrics = await request(gw, { path: '/metrics', method: 'GET' });
    assert.match(metrics.text, /^chatmux_breaker_state\{provider="one"\} 1$/m);
    assert.match(metrics.text, /^chatmux_breaker_state\{provider="two"\} 0$/m);

    await sleep(10_200);
    assert.equal(await state(), 'half_open');
    fakes[0].always(play.after(500, play.ok({ text: 'one' })));
    const answers = await Promise.all(Array.from({ length: 5 }, () => ask('one/m1')));
    assert.deepEqual(answers.map((r) => r.status).sort(), [200, 503, 503, 503, 503], 'one real request decides');
    assert.equal(await state(), 'closed');
    assert.equal(await said('one/m1'), 'one');
});

// ---- hedging

const KEYS = ['sk-up-1', 'sk-up-2', 'sk-up-3', 'sk-up-4'];
const hedges = async (gw) => {
    const { text } = await request(gw, { path: '/metrics', method: 'GET' });
    return Object.fromEntries([...text.matchAll(/^chatmux_hedges_total\{provider="(\w+)",result="(\w+)"\} (\d+)$/gm)].map(([, p, r, n]) => [`${p} ${r}`, Number(n)]));
};

for (const stream of [true, false])
    scenario(`hedge_after: a second account answers when the first is silent (stream: ${stream})`, async (t) => {
        const { fakes, gw } = await pair(t, { route: { hedge_after: '200ms' }, keys: KEYS, config: { 'price m1': { input: 1000, output: 1000 } } });
        fakes[0].next(play.hangAfterHead());
        const began = performance.now();
        const r = await request(gw, { body: chat('best', 'x', { stream }) });
        assert.equal(r.status, 200, r.text);
        assert.ok(performance.now() - began < 2000);
        assert.equal(r.headers['x-chatmux-attempts'], '2');
        if (stream) assert.equal(readChatStream(r.bytes).text, 'one');
        else assert.equal(r.json.choices[0].message.content, 'one');
        const [first, second] = fakes[0].requests;
        assert.notEqual(first.key, second.key);
        await until(() => first.isGone, 'the slower one to be cancelled', 1000);
        assert.deepEqual(await hedges(gw), { 'one won': 1 });
        const { text } = await request(gw, { path: '/metrics', method: 'GET' });
        assert.ok(Number(text.match(/^chatmux_hedge_waste_usd_total ([\d.e-]+)$/m)[1]) > 0, 'what the slower one cost is booked');
    });

scenario('the first attempt may still be quicker, and a rival that fails changes nothing', async (t) => {
    const { fakes, gw, ask } = await pair(t, { route: { hedge_after: '150ms' }, keys: KEYS });
    fakes[0].next(play.after(600, play.ok({ text: 'first' })), play.hang());
    let r = await ask();
    assert.equal(r.json.choices[0].message.content, 'first');
    await until(() => fakes[0].requests[1].isGone, 'the slower one to be cancelled', 1000);
    assert.deepEqual(await hedges(gw), { 'one lost': 1 });

    for (let i = 0; i < 25; i++) await ask(); // a full purse again
    const before = fakes[0].requests.length;
    fakes[0].next(play.after(600, play.ok({ text: 'first' })), play.error(500, 'oops', { type: 'server_error' }));
    r = await ask();
    assert.equal(r.json.choices[0].message.content, 'first');
    assert.equal(fakes[0].requests.length, before + 2);
});

scenario('the first attempt fails while the second runs: that one goes on', async (t) => {
    const { fakes, ask } = await pair(t, { route: { hedge_after: '100ms' }, keys: KEYS });
    fakes[0].next(play.after(400, play.error(500, 'oops', { type: 'server_error' })), play.after(700, play.ok({ text: 'second' })));
    const r = await ask();
    assert.equal(r.json.choices[0].message.content, 'second');
    assert.equal(fakes[0].requests.length, 2);
});

scenario('a mistake in the request is told at once', async (t) => {
    const { fakes, ask } = await pair(t, { route: { hedge_after: '100ms' }, keys: KEYS });
    fakes[0].next(play.after(300, play.error(400, 'max_tokens is too large', { param: 'max_tokens' })), play.after(5000, play.ok()));
    const began = performance.now();
    assert.equal((await ask()).status, 400);
    assert.ok(performance.now() - began < 2000);
});

scenario('no second attempt with the last healthy account, nor more than one in twenty', async (t) => {
    const few = await pair(t, { route: { hedge_after: '50ms' }, keys: ['sk-up-1', 'sk-up-2'], two: { credentials: ['sk-up-1'] } });
    few.fakes[0].always(play.after(400, play.ok()));
    assert.equal((await few.ask()).status, 200);
    assert.equal(few.fakes[0].requests.length + few.fakes[1].requests.length, 1);

    const many = await pair(t, { route: { hedge_after: '20ms' }, keys: KEYS });
    for (const fake of many.fakes) fake.always(play.after(60, play.ok()));
    for (let i = 0; i < 60; i++) assert.equal((await many.ask()).status, 200);
    const extra = many.fakes[0].requests.length + many.fakes[1].requests.length - 60;
    assert.ok(extra >= 2 && extra <= 4, `${extra} extra attempts`);
});

scenario('no second attempt for pictures and speech, which cannot be taken back', async (t) => {
    const asked = [];
    const server = http.createServer((req, res) => {
        asked.push(req.url);
        req.resume().on('end', () =>
            setTimeout(() => {
                res.writeHead(200, { 'content-type': req.url.includes('audio') ? 'audio/mpeg' : 'application/json' });
                res.end(req.url.includes('audio') ? 'ID3' : req.url.includes('images') ? '{"created":1,"data":[{"b64_json":"AAAA"}]}' : '{"choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}]}');
            }, 300),
        );
    });
    await new Promise((done) => server.listen(0, '127.0.0.1', done));
    atEnd(t, () => server.closeAllConnections() ?? server.close());
    const gw = await startGateway(t, {
        config: { 'provider up': { type: 'openai', base_url: `http://127.0.0.1:${server.address().port}/v1`, credentials: KEYS, models: ['m1'] }, 'model best': { targets: ['up/m1'], hedge_after: '50ms' } },
    });
    const ask = async (path, body) => {
        const before = asked.length;
        const r = await request(gw, { path, body: { model: 'best', ...body } });
        assert.equal(r.status, 200, r.text);
        return asked.length - before;
    };
    const fill = Array.from({ length: 40 }, () => request(gw, { body: chat('up/m1') })); // each adds to what may be spent on second attempts
    for (const r of await Promise.all(fill)) assert.equal(r.status, 200, r.text);
    assert.equal(await ask('/v1/images/generations', { prompt: 'a cat' }), 1);
    assert.equal(await ask('/v1/audio/speech', { input: 'hello', voice: 'alloy' }), 1);
    const messages = [{ role: 'user', content: 'x' }];
    assert.equal(await ask('/v1/chat/completions', { messages, modalities: ['text', 'audio'], audio: { voice: 'alloy', format: 'wav' } }), 1);
    assert.equal(await ask('/v1/chat/completions', { messages }), 2, 'a chat gets one');
});

scenario('no second attempt for pictures that are asked for in a chat, nor with a model that makes them', async (t) => {
    const slow = { type: 'demo', 'x.delay': '300ms' };
    const route = (targets) => ({ targets, strategy: 'priority', hedge_after: '50ms' });
    const gw = await startGateway(t, {
        config: {
            'provider one': slow,
            'provider two': slow,
            'model texts': route(['one/demo', 'two/demo']),
            'model pictures': route(['one/demo-image', 'two/demo']),
            'model either': route(['one/demo', 'two/demo-image']),
        },
    });
    const attempts = async (model, more) => {
        const r = await request(gw, { body: chat(model, 'x', more) });
        assert.equal(r.status, 200, r.text);
        return Number(r.headers['x-chatmux-attempts']);
    };
    const fill = Array.from({ length: 100 }, () => attempts('one/demo')); // each adds to what may be spent on second attempts
    await Promise.all(fill);
    for (const stream of [false, true]) {
        assert.equal(await attempts('pictures', { stream }), 1);
        assert.equal(await attempts('either', { stream }), 1);
        assert.equal(await attempts('texts', { stream }), 2, 'a text gets one');
    }
});

scenario('a target says what its requests say', async (t) => {
    const { fakes, gw } = await pair(t, { route: { targets: ['one/m1 temperature=0.25 max_tokens=77 reasoning_effort=low'] } });
    const body = { ...chat('best'), temperature: 1, seed: 5, max_completion_tokens: 10 };
    for (const stream of [false, true]) {
        const r = await request(gw, { body: { ...body, stream } });
        assert.equal(r.status, 200, r.text);
        const { temperature, seed, max_completion_tokens, max_tokens, reasoning_effort, model } = fakes[0].last.json;
        assert.deepEqual({ temperature, seed, max_completion_tokens, max_tokens, reasoning_effort, model }, { temperature: 0.25, seed: 5, max_completion_tokens: 77, max_tokens: undefined, reasoning_effort: 'low', model: 'm1' });
    }
    await request(gw, { body: { ...body, model: 'one/m1' } });
    assert.equal(fakes[0].last.json.temperature, 1, 'only through the route');

    const translated = await request(gw, { path: '/v1/messages', body: { model: 'best', max_tokens: 500, temperature: 0.5, messages: [{ role: 'user', content: 'x' }] } });
    assert.equal(translated.status, 200, translated.text);
    assert.equal(fakes[0].last.json.temperature, 0.25);
    assert.equal(fakes[0].last.json.max_completion_tokens ?? fakes[0].last.json.max_tokens, 77);
});
