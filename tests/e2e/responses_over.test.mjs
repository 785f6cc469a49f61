// The Responses API over each kind of platform, in one gateway: answers, streams, reasoning, tools, pictures, schemas, failures, and one conversation that
// wanders over all of them.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { CLIENT_KEY, scenario, startGateway } from '../lib/gateway.mjs';
import * as anthropic from '../lib/fake_anthropic.mjs';
import * as gemini from '../lib/fake_gemini.mjs';
import { say as hix, startFakeHix } from '../lib/fake_hix.mjs';
import * as openai from '../lib/fake_openai.mjs';
import { checkEvents } from '../lib/responses_order.mjs';

const PIXEL = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mPQz78HAAJNAX0mh+/CAAAAAElFTkSuQmCC';
const OPUS = 'claude-opus-4-8', FLASH = 'gemini-3.5-flash', R1 = 'deepseek-r1', GPT = 'm1';
const SCHEMA = { type: 'object', properties: { a: { type: 'number' } }, required: ['a'], additionalProperties: false };
const tool = (name) => ({ type: 'function', name, description: `the ${name}`, parameters: { type: 'object', properties: { at: { type: 'string' } }, required: ['at'], additionalProperties: false }, strict: true });

async function start(t) {
    const fakes = {
        [OPUS]: await anthropic.startFakeAnthropic(t), [FLASH]: await gemini.startFakeGemini(t), [R1]: await startFakeHix(t), [GPT]: await openai.startFakeOpenai(t),
    };
    const gw = await startGateway(t, {
        config: {
            retry: { retries: 0, max_wait: 0 }, upstream: { breaker_rate: 0 },
            'provider claude': anthropic.providerFor(fakes[OPUS], { credentials: fakes[OPUS].keys.slice(0, 1), models: [OPUS] }),
            'provider gemini': gemini.providerFor(fakes[FLASH], { credentials: fakes[FLASH].keys.slice(0, 1) }),
            'provider hix': { type: 'hix', base_url: fakes[R1].base, credentials: fakes[R1].sessions.slice(0, 1), models: [R1] },
            'provider up': openai.providerFor(fakes[GPT], { credentials: fakes[GPT].keys.slice(0, 1) }),
        },
    });
    return { fakes, gw, sdk: new OpenAI({ baseURL: gw.base, apiKey: CLIENT_KEY, maxRetries: 0 }) };
}

/** How each fake says a text, with reasoning in front where the platform has it. */
const says = {
    [OPUS]: (text, fake) => anthropic.play.answer({ content: [fake.thinking('Hm.'), { type: 'text', text }] }),
    [FLASH]: (text) => gemini.play.ok({ text, thoughts: ['Hm.'] }),
    [R1]: (text) => hix.answer({ reasoning: ['H', 'm.'], pieces: text.match(/.{1,4}/gsu) }),
    [GPT]: (text) => (rec) => {
        const w = new openai.ChunkWriter(rec.json.model, true), message = openai.completion(rec.json.model, text);
        message.choices[0].message.reasoning_content = 'Hm.';
        rec.res.writeHead(200, { 'content-type': rec.json.stream ? 'text/event-stream' : 'application/json' });
        rec.res.end(rec.json.stream ? w.role() + w.delta({ reasoning_content: 'Hm.' }) + w.text(text) + w.end() : JSON.stringify(message));
    },
};

const breaks = {
    [OPUS]: anthropic.play.broken('cut', { text: 'half' }),
    [FLASH]: gemini.play.cut({ pieces: ['half'] }),
    [R1]: hix.cut(['half']),
    [GPT]: openai.play.cutMidStream({ pieces: ['half'] }),
};

async function collect(stream) {
    const events = [];
    let error = null;
    try {
        for await (const e of stream) events.push(e);
    } catch (e) {
        error = e;
    }
    return { events, error, ...checkEvents(events) };
}

const ask = { reasoning: { effort: 'low', summary: 'auto' } };

for (const model of [OPUS, FLASH, R1, GPT])
    scenario(`${model}: whole, streamed with reasoning, and turns that go on`, async (t) => {
        const { fakes, sdk } = await start(t);
        fakes[model].always(says[model]('Blue é世.', fakes[model]));
        const one = await sdk.responses.create({ ...ask, model, input: 'Name a colour.' });
        assert.deepEqual(one.output.map((x) => x.type), ['reasoning', 'message']);
        assert.deepEqual(one.output[0].summary, [{ type: 'summary_text', text: 'Hm.' }]);
        assert.equal(one.output_text, 'Blue é世.');
        assert.ok(one.usage.total_tokens > 0);

        fakes[model].always(says[model]('Green.', fakes[model]));
        const two = await collect(await sdk.responses.create({ ...ask, model, input: 'Another.', previous_response_id: one.id, stream: true }));
        assert.deepEqual(two.items.map((x) => x.type), ['reasoning', 'message']);
        assert.equal(two.text, 'Green.');
        assert.equal(two.response.previous_response_id, one.id);
        assert.ok(two.types.indexOf('response.reasoning_summary_part.done') < two.types.indexOf('response.content_part.added'));
        const last = JSON.stringify(model === R1 ? fakes[model].of('/api/hix/chat').at(-1).json : fakes[model].last.json);
        assert.match(last, /Another\./);
        if (model !== R1) assert.match(last, /Name a colour.*Blue é世/s);
        fakes[model].always(breaks[model]);
        const cut = await collect(await sdk.responses.create({ model, input: 'x', stream: true }));
        assert.ok(cut.error, 'no clean end');
        assert.deepEqual(cut.types.slice(-2), ['error', 'response.failed']);
    });

for (const [model, calls] of [
    [OPUS, (fake) => anthropic.play.answer({ content: [fake.thinking('Both.'), ...['look', 'wait'].map((name, i) => ({ type: 'tool_use', id: `toolu_${i}`, name, input: { at: `place ${i}` } }))], stop_reason: 'tool_use' })],
    [FLASH, () => gemini.play.calls(['look', 'wait'].map((name, i) => ({ name, args: { at: `place ${i}` } })))],
])
    scenario(`${model}: parallel calls, their outputs with a picture, and the state that the platform wants back`, async (t) => {
        const { fakes, sdk } = await start(t);
        const tools = [tool('look'), tool('wait')];
        for (const stream of [false, true]) {
            fakes[model].always(calls(fakes[model]));
            const request = { ...ask, model, input: [{ role: 'user', content: 'Go.' }], tools, tool_choice: 'auto', parallel_tool_calls: true };
            const one = stream ? (await collect(await sdk.responses.create({ ...request, stream }))).response : await sdk.responses.create(request);
            const made = one.output.filter((x) => x.type === 'function_call');
            assert.deepEqual(made.map((c) => [c.name, JSON.parse(c.arguments)]), [['look', { at: 'place 0' }], ['wait', { at: 'place 1' }]]);
            assert.ok(made.every((c) => c.id.startsWith('fc_') && c.id !== c.call_id));

            fakes[model].always(says[model]('Seen.', fakes[model]));
            const outputs = [...made].reverse().map((c) => ({ type: 'function_call_output', call_id: c.call_id, output: c.name === 'look' ? [{ type: 'input_text', text: 'a dot' }, { type: 'input_image', image_url: `data:image/png;base64,${PIXEL}`, detail: 'auto' }] : 'done' }));
            const byId = await sdk.responses.create({ ...ask, model, input: outputs, tools, previous_response_id: one.id });
            assert.equal(byId.output_text, 'Seen.');
            const sent = JSON.stringify(fakes[model].last.json);
            assert.match(sent, model === OPUS ? /"thinking":"Both\.","signature":"\w/ : /thoughtSignature/, 'what only the platform reads has come back to it');
            assert.match(sent, new RegExp(PIXEL.slice(0, 30)));
            const byItems = await sdk.responses.create({ ...ask, model, input: [...request.input, ...one.output, ...outputs], tools, store: false });
            assert.equal(byItems.output_text, 'Seen.');
            assert.deepEqual(fakes[model].last.json.messages ?? fakes[model].last.json.contents, JSON.parse(sent).messages ?? JSON.parse(sent).contents, 'both ways say the same');
        }
    });

for (const model of [OPUS, FLASH, GPT])
    scenario(`${model}: a picture in the question, and an answer by a schema`, async (t) => {
        const { fakes, sdk } = await start(t);
        fakes[model].always(model === OPUS ? anthropic.play.answer({ content: [{ type: 'text', text: '{"a":1}' }] }) : says[model]('{"a":1}', fakes[model]));
        const r = await sdk.responses.parse({
            model,
            input: [{ role: 'user', content: [{ type: 'input_text', text: 'What?' }, { type: 'input_image', image_url: `data:image/png;base64,${PIXEL}`, detail: 'auto' }] }],
            text: { format: { type: 'json_schema', name: 'thing', schema: SCHEMA, strict: true } },
        });
        assert.deepEqual(JSON.parse(r.output_text), { a: 1 });
        const sent = JSON.stringify(fakes[model].last.json);
        assert.ok(sent.includes(PIXEL));
        assert.match(sent, /"a":\{"type":"(number|NUMBER)"\}/);
    });

scenario('one conversation over four platforms', async (t) => {
    const { fakes, sdk } = await start(t);
    const order = [GPT, OPUS, R1, FLASH];
    let previous;
    for (const [i, model] of order.entries()) {
        fakes[model].always(says[model](`Answer ${i}.`, fakes[model]));
        const r = await sdk.responses.create({ model, input: `Question ${i}.`, ...(previous && { previous_response_id: previous }) });
        assert.equal(r.output_text, `Answer ${i}.`);
        previous = r.id;
    }
    const texts = fakes[FLASH].last.json.contents.map((c) => `${c.role}: ${c.parts.map((p) => p.text).join('')}`);
    assert.deepEqual(texts, ['user: Question 0.', 'model: Answer 0.', 'user: Question 1.', 'model: Answer 1.', 'user: Question 2.', 'model: Answer 2.', 'user: Question 3.']);
    assert.match(fakes[R1].of('/api/hix/chat').at(-1).json.question, /Question 0\..*Answer 0\..*Question 1\..*Answer 1\..*Question 2\./s);
});
