// The table: each surface over each upstream, with every official SDK that speaks the surface, and for each cell the same list of things that have to
// work. What one SDK or one upstream needs beyond it is in messages, gemini_surface, anthropic, gemini and openai_translate.
import assert from 'node:assert/strict';
import { CLIENTS, PNG } from '../lib/dialect_clients.mjs';
import { UPSTREAMS, USAGE } from '../lib/dialect_upstreams.mjs';
import { Turnstile } from '../lib/fake_openai.mjs';
import { request, scenario, startGateway, until } from '../lib/gateway.mjs';

const ADMIN = 'admin-secret-4711';
const BOTH = [false, true];
const how = (stream) => (stream ? 'streamed' : 'whole');

const TOOLS = [
    { name: 'look', description: 'looks at a place', schema: { type: 'object', properties: { at: { type: 'string' } }, required: ['at'], additionalProperties: false } },
    { name: 'wait', description: 'waits', schema: { type: 'object', properties: { s: { type: 'integer' } }, required: ['s'], additionalProperties: false } },
];
const SCHEMA = { type: 'object', properties: { colour: { type: 'string' }, n: { type: 'integer' } }, required: ['colour', 'n'], additionalProperties: false };

/** What goes wrong upstream -> what each surface says: status and word; null: the upstream's own where it speaks the dialect. */
const ERRORS = {
    bad_request: { openai: [400, null], anthropic: [400, 'invalid_request_error'], gemini: [400, 'INVALID_ARGUMENT'] },
    context_length: { openai: [400, 'context_length_exceeded'], anthropic: [400, 'invalid_request_error'], gemini: [400, 'INVALID_ARGUMENT'] },
    credential: { openai: [502, 'upstream_auth'], anthropic: [502, 'api_error'], gemini: [502, 'UNAVAILABLE'] },
    limited: { openai: [429, 'rate_limit_exceeded'], anthropic: [429, 'rate_limit_error'], gemini: [429, 'RESOURCE_EXHAUSTED'] },
    quota: { openai: [429, 'insufficient_quota'], anthropic: [429, null], gemini: [429, 'RESOURCE_EXHAUSTED'] },
    overloaded: { openai: [503, 'overloaded'], anthropic: [529, 'overloaded_error'], gemini: [503, 'UNAVAILABLE'] },
    down: { openai: [502, 'upstream_error'], anthropic: [502, 'api_error'], gemini: [502, 'UNAVAILABLE'] },
    html: { openai: [502, 'upstream_error'], anthropic: [502, 'api_error'], gemini: [502, 'UNAVAILABLE'] },
    model: { openai: [404, 'model_not_found'], anthropic: [404, 'not_found_error'], gemini: [404, 'NOT_FOUND'] },
};

/** What each surface says when a stream breaks off. */
const CUT = { openai: 'upstream_cut', anthropic: 'api_error', gemini: 'UNAVAILABLE' };

/** From the moment the client left to the end of the upstream's connection. */
async function closesWithinASecond(rec, leftAt) {
    await until(() => rec.isGone, 'the upstream connection to be closed');
    assert.ok(rec.goneAt - leftAt <= 1000, `closed after ${Math.round(rec.goneAt - leftAt)} ms`);
}

/** The items of a cell: name -> async ({client, up, fake, models, reset}). */
const ITEMS = {
    async 'plain and streamed, with its figures'({ client, up, fake, models }) {
        for (const stream of BOTH) {
            fake.next(up.says({ text: 'Grüße 世界 🌍.' }));
            let pieces = 0;
            const answer = await client.ask(models.plain, { user: 'Hi' }, { stream, onText: () => pieces++ });
            assert.equal(answer.text, 'Grüße 世界 🌍.', how(stream));
            assert.equal(answer.finish, 'stop');
            assert.ok(!stream || pieces > 1, 'as it comes');
            const { reasoning, ...figures } = answer.usage;
            const { reasoning: _, ...expected } = USAGE;
            assert.deepEqual(figures, expected, how(stream));
            if (reasoning !== undefined) assert.equal(reasoning, USAGE.reasoning);
            assert.deepEqual(up.seen(fake.last).turns, [['user', 'Hi']]);
        }
    },

    /** One that is held back makes the client give up. */
    async 'each delta reaches the client before the next one is sent'({ client, up, fake, models }) {
        const pieces = Array.from({ length: 12 }, (_, i) => `piece ${i} é世🌍 `);
        const turn = new Turnstile();
        const seen = [];
        let sent = 0;
        const onText = (piece) => {
            seen.push(piece);
            turn.open();
        };
        const afterText = (rec) => {
            sent++;
            return Promise.race([turn.wait(), rec.gone]);
        };
        fake.next(up.says({ text: pieces.join(''), pieces, afterText }));
        await client.ask(models.plain, { user: 'Hi' }, { stream: true, onText, signal: AbortSignal.timeout(10_000) }).catch((e) => assert.fail(`${seen.length} of ${sent} deltas came: ${e}`));
        assert.deepEqual(seen, pieces);
        assert.equal(sent, pieces.length);
    },

    async 'several turns and a system text'({ client, up, fake, models }) {
        for (const stream of BOTH) {
            fake.next(up.says({ text: 'Blue.' }));
            const first = await client.ask(models.plain, { system: 'Be brief.', user: 'A colour?' }, { stream });
            fake.next(up.says({ text: 'Green.' }));
            const second = await client.ask(models.plain, { system: 'Be brief.', history: [{ user: 'A colour?' }, { model: first }], user: 'Another?' }, { stream });
            assert.equal(second.text, 'Green.');
            const { system, turns } = up.seen(fake.last);
            assert.equal(system, 'Be brief.');
            assert.deepEqual(turns, [['user', 'A colour?'], ['assistant', 'Blue.'], ['user', 'Another?']]);
        }
    },

    async 'parallel tools, there and back'({ name, client, up, fake, models }) {
        for (const stream of BOTH) {
            const calls = [{ name: 'look', args: { at: 'Zürich "HB" \\ é' } }, { name: 'wait', args: { s: 3 } }];
            fake.next(up.says({ text: 'Looking.', calls }));
            const what = { system: 'Use tools.', tools: TOOLS, choice: 'required', user: 'Weather?' };
            const first = await client.ask(models.tools, what, { stream });
            assert.equal(first.text, 'Looking.', how(stream));
            assert.equal(first.finish, 'tools');
            assert.deepEqual(first.calls.map(({ name, args }) => ({ name, args })), calls);
            assert.ok(first.calls[0].id !== first.calls[1].id || name === 'gemini', 'only Gemini makes calls without ids');
            assert.deepEqual([up.seen(fake.last).tools, up.seen(fake.last).choice], [['look', 'wait'], 'required']);
            const [look, wait] = first.calls;
            fake.next(up.says({ text: 'Sunny.' }));
            const history = [{ user: 'Weather?' }, { model: first }, { results: [{ call: look, text: 'sun' }, { call: wait, text: 'waited' }] }];
            const second = await client.ask(models.tools, { system: 'Use tools.', tools: TOOLS, history }, { stream });
            assert.equal(second.text, 'Sunny.');
            const seen = up.seen(fake.last);
            assert.deepEqual(seen.results, [['look', 'sun'], ['wait', 'waited']]);
            assert.deepEqual(seen.turns.slice(0, 2), [['user', 'Weather?'], ['assistant', 'Looking.']]);
            assert.ok([undefined, 'auto'].includes(seen.choice));
        }
    },

    async 'a call without arguments and without words'({ client, up, fake, models }) {
        for (const stream of BOTH) {
            fake.next(up.says({ calls: [{ name: 'now', args: {} }] }));
            const tools = [{ name: 'now', description: 'the time', schema: { type: 'object', properties: { zone: { type: 'string' } } } }];
            const first = await client.ask(models.tools, { tools, user: 'Time?' }, { stream });
            assert.deepEqual([first.text, first.calls.map((c) => [c.name, c.args])], ['', [['now', {}]]]);
            fake.next(up.says({ text: 'Noon.' }));
            const second = await client.ask(models.tools, { tools, history: [{ user: 'Time?' }, { model: first }, { results: [{ call: first.calls[0], text: '12:00' }] }] }, { stream });
            assert.equal(second.text, 'Noon.');
            assert.deepEqual(up.seen(fake.last).results, [['now', '12:00']]);
        }
    },

    async 'a picture'({ client, up, fake, models }) {
        fake.next(up.says({ text: 'A dot.' }));
        assert.equal((await client.ask(models.plain, { user: [{ text: 'What is it?' }, { png: PNG }] })).text, 'A dot.');
        assert.deepEqual(up.seen(fake.last).images, [PNG]);
        assert.deepEqual(up.seen(fake.last).turns, [['user', 'What is it?']]);
    },

    async 'an answer by a schema'({ client, up, fake, models }) {
        for (const stream of BOTH) {
            fake.next(up.says({ text: '{"colour":"blau é","n":7}' }));
            const answer = await client.ask(models.plain, { user: 'A colour in JSON.', schema: SCHEMA }, { stream });
            assert.deepEqual(answer.object ?? JSON.parse(answer.text), { colour: 'blau é', n: 7 });
            const { schema } = up.seen(fake.last);
            assert.deepEqual([Object.keys(schema.properties), schema.required], [['colour', 'n'], ['colour', 'n']]);
        }
    },

    async 'where to stop, and how long'({ client, up, fake, models }) {
        for (const stream of BOTH) {
            fake.next(up.says({ text: 'part of it', finish: 'length' }));
            const answer = await client.ask(models.plain, { user: 'Go on.', stop: ['END', 'FIN'], max: 17 }, { stream });
            assert.deepEqual([answer.text, answer.finish], ['part of it', 'length'], how(stream));
            const { stop, max } = up.seen(fake.last);
            assert.equal(max, 17);
            if (client.hasStop !== false) assert.deepEqual(stop, ['END', 'FIN']);
        }
    },

    async 'thinking, and the turn behind it'({ client, up, fake, models }) {
        for (const stream of BOTH) {
            fake.next(up.says({ reasoning: 'Let me think about it.', text: 'Blue.' }));
            const first = await client.ask(models.think, { user: 'A colour?', think: true, max: 6000 }, { stream });
            assert.deepEqual([first.reasoning, first.text], ['Let me think about it.', 'Blue.'], how(stream));
            assert.equal(up.seen(fake.last).effort, 'low');
            fake.next(up.says({ text: 'Green.' }));
            const second = await client.ask(models.think, { user: 'Another?', think: true, max: 6000, history: [{ user: 'A colour?' }, { model: first }] }, { stream });
            assert.equal(second.text, 'Green.');
            assert.deepEqual(up.seen(fake.last).turns, [['user', 'A colour?'], ['assistant', 'Blue.'], ['user', 'Another?']]);
        }
    },

    async 'thinking before calls'({ client, up, fake, models }) {
        for (const stream of BOTH) {
            const what = { tools: TOOLS, user: 'Weather?', think: true, max: 6000 };
            fake.next(up.says({ reasoning: 'I have to look.', calls: [{ name: 'look', args: { at: 'Rom' } }] }));
            const first = await client.ask(models.think, what, { stream });
            assert.equal(first.reasoning, 'I have to look.', how(stream));
            fake.next(up.says({ text: 'Sunny.' }));
            const second = await client.ask(models.think, { ...what, user: undefined, history: [{ user: 'Weather?' }, { model: first }, { results: [{ call: first.calls[0], text: 'sun' }] }] }, { stream });
            assert.equal(second.text, 'Sunny.');
            assert.deepEqual(up.seen(fake.last).results, [['look', 'sun']]);
        }
    },

    async 'a client that leaves'({ client, up, fake, models }) {
        fake.next(up.says({ text: 'word '.repeat(500), slow: 10 }));
        const control = new AbortController();
        let leftAt = null;
        const onText = () => {
            leftAt ??= performance.now();
            control.abort();
        };
        const outcome = client.ask(models.plain, { user: 'Talk.' }, { stream: true, signal: control.signal, onText });
        await assert.rejects(outcome, (e) => client.isAbort(e));
        await closesWithinASecond(fake.last, leftAt);

        fake.next(() => {}); // silence
        const before = fake.requests.length;
        const waiting = new AbortController();
        const silent = assert.rejects(client.ask(models.plain, { user: 'Think.' }, { signal: waiting.signal }), (e) => client.isAbort(e));
        await until(() => fake.requests.length > before, 'the second question');
        leftAt = performance.now();
        waiting.abort();
        await silent;
        await closesWithinASecond(fake.last, leftAt);
    },

    async 'each class of error'({ client, up, fake, models, reset }) {
        for (const [kind, told] of Object.entries(ERRORS)) {
            const [status, word] = told[client.surface];
            for (const stream of BOTH) {
                fake.next(up.fails(kind));
                const before = fake.requests.length;
                await assert.rejects(client.ask(models.plain, { user: 'x' }, { stream }), (e) => {
                    const seen = client.failure(e);
                    assert.ok(seen.isError, `${kind}: ${e.stack}`);
                    assert.equal(seen.status, status, `${kind} ${how(stream)}: ${e.message}`);
                    if (word) assert.equal(seen.word, word, `${kind} ${how(stream)}: ${e.message}`);
                    if (kind === 'limited' && seen.headers) assert.ok(Number(seen.headers.get('retry-after')) >= 32, `${kind}: retry-after`);
                    assert.ok(!/sk-up-|sk-ant-api|AIzaFake/.test(e.message), e.message);
                    return true;
                });
                assert.equal(fake.requests.length, before + 1, `${kind}: asked once`);
                await reset();
            }
        }
    },

    async 'streams that break'({ client, up, fake, models, reset }) {
        for (const way of ['error', 'cut', 'end']) {
            fake.next(up.breaks(way));
            let text = '';
            const word = way === 'error' ? ERRORS.overloaded[client.surface][1] : CUT[client.surface];
            await assert.rejects(client.ask(models.plain, { user: 'x' }, { stream: true, onText: (piece) => (text += piece) }), (e) => {
                const seen = client.failure(e);
                assert.ok(seen.isError, e);
                if (!seen.raw) assert.equal(seen.word, word, `${way}: ${e.message}`);
                return true;
            });
            assert.equal(text, 'half of it', way);
            await reset();
        }
    },

    async 'a megabyte each way'({ client, up, fake, models }) {
        const big = 'é€𐍈x'.repeat(105_000);
        for (const stream of BOTH) {
            fake.next(up.says({ text: big, pieces: big.match(/[\s\S]{1,20000}/gu) }));
            const answer = await client.ask(models.plain, { user: big }, { stream });
            assert.ok(answer.text === big, how(stream));
            assert.ok(up.seen(fake.last).turns[0][1] === big);
        }
    },
};

/** Counts answers, and collects members with a place in their names ("tools[0].x") of x-chatmux-dropped. */
function watchDropped(t) {
    const plain = globalThis.fetch;
    const told = { answers: 0, inside: new Set() };
    globalThis.fetch = async (...args) => {
        const answer = await plain(...args);
        told.answers++;
        for (const name of answer.headers.get('x-chatmux-dropped')?.split(', ') ?? []) if (/[.[]/.test(name)) told.inside.add(name);
        return answer;
    };
    t.after(() => (globalThis.fetch = plain));
    return told;
}

scenario('every SDK over every upstream', { timeout: 300_000, concurrency: 3 }, async (t) => {
    const columns = Object.entries(UPSTREAMS);
    const started = await Promise.all(columns.map(([, up]) => up.start(t)));
    const gw = await startGateway(t, {
        config: {
            auth: { admin_secret: ADMIN },
            retry: { retries: 0, max_wait: 0 },
            upstream: { breaker_rate: 0 },
            log: { level: 'warn' },
            ...Object.fromEntries(columns.map(([name], i) => [`provider ${name}`, started[i].provider])),
        },
    });
    const { data } = (await request(gw, { path: '/admin/api/credentials', key: ADMIN })).json;
    const told = watchDropped(t);
    for (const client of Object.values(CLIENTS)) client.start(gw);
    // The fakes know nothing of each other: a column at a time beside the others.
    await Promise.all(columns.map(async ([name, up], i) => {
        const account = data.find((c) => c.provider === name);
        const cell = { name, up, fake: started[i].fake, models: up.models, reset: () => request(gw, { path: `/admin/api/credentials/${account.id}/reset`, key: ADMIN, body: {} }) };
        for (const [who, client] of Object.entries(CLIENTS))
            for (const [item, check] of Object.entries(ITEMS))
                await t.test(`${who} over ${name}: ${item}`, () => {
                    cell.fake.inOrder.length = 0; // one that failed takes no other with it
                    return check({ ...cell, client });
                });
    }));
    assert.ok(told.answers > 500, 'they were seen');
    /* what SDKs say inside of their bodies is known, echoes of answers included */
    assert.deepEqual([...told.inside], []);
});
