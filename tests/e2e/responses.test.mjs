// The Responses API with OpenAI's own SDK, over platforms that do not speak it: what a client sees of answers, streams, tools, state and failures.
import assert from 'node:assert/strict';
import http from 'node:http';
import OpenAI from 'openai';
import { CLIENT_KEY, request, scenario, startGateway } from '../lib/gateway.mjs';
import { ChunkWriter, play, providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';
import { checkEvents, readEvents } from '../lib/responses_order.mjs';

async function start(t, { fakeOptions, provider, ...more } = {}) {
    const fake = await startFakeOpenai(t, fakeOptions);
    const gw = await startGateway(t, { ...more, config: { ...more.config, 'provider up': providerFor(fake, { credentials: fake.keys.slice(0, 1), models: ['m1', 'alias=m2'], ...provider }) } });
    return { fake, gw, sdk: new OpenAI({ baseURL: gw.base, apiKey: CLIENT_KEY, maxRetries: 0 }) };
}

const FUNCTION = { type: 'function', name: 'look', description: 'Looks', parameters: { type: 'object', properties: { at: { type: 'string' } }, required: ['at'], additionalProperties: false }, strict: true };

/** All events of a stream that the SDK reads. */
async function collect(stream) {
    const events = [];
    for await (const e of stream) events.push(e);
    return events;
}

scenario('a whole answer: what was asked, what comes back, what is repeated', async (t) => {
    const { fake, sdk } = await start(t);
    fake.always(play.ok({ text: 'Grüße 世界' }));
    const r = await sdk.responses.create({ model: 'alias', input: 'Hi', instructions: 'Be brief.', temperature: 0.5, max_output_tokens: 50, metadata: { a: 'b' }, store: false });
    assert.match(r.id, /^resp_cm_/);
    assert.equal(r.object, 'response');
    assert.equal(r.status, 'completed');
    assert.equal(r.output_text, 'Grüße 世界');
    assert.equal(r.output.length, 1);
    assert.match(r.output[0].id, /^msg_/);
    assert.deepEqual({ ...r.output[0], id: '' }, { id: '', type: 'message', status: 'completed', role: 'assistant', content: [{ type: 'output_text', annotations: [], logprobs: [], text: 'Grüße 世界' }] });
    assert.equal(r.model, 'alias');
    assert.equal(r.instructions, 'Be brief.');
    assert.equal(r.temperature, 0.5);
    assert.equal(r.max_output_tokens, 50);
    assert.deepEqual(r.metadata, { a: 'b' });
    assert.deepEqual([r.tools, r.tool_choice, r.parallel_tool_calls, r.previous_response_id, r.error, r.incomplete_details, r.store, r.background], [[], 'auto', true, null, null, null, false, false]);
    assert.ok(Math.abs(r.created_at - Date.now() / 1000) < 60);
    assert.deepEqual(r.usage, { input_tokens: 11, input_tokens_details: { cached_tokens: 0, cache_write_tokens: 0 }, output_tokens: 7, output_tokens_details: { reasoning_tokens: 0 }, total_tokens: 18 });
    assert.deepEqual(fake.last.json, { model: 'm2', messages: [{ role: 'system', content: 'Be brief.' }, { role: 'user', content: 'Hi' }], max_tokens: 50, temperature: 0.5 });
});

scenario('a stream: every event in its order', async (t) => {
    const { fake, gw, sdk } = await start(t);
    fake.always(play.ok({ pieces: ['Grü', 'ße ', '世界'] }));
    const raw = await request(gw, { path: '/v1/responses', body: { model: 'm1', input: 'Hi', stream: true } });
    assert.match(raw.headers['content-type'], /^text\/event-stream/);
    assert.deepEqual(checkEvents(readEvents(raw.text)).types, [
        'response.created', 'response.in_progress', 'response.output_item.added', 'response.content_part.added',
        'response.output_text.delta', 'response.output_text.delta', 'response.output_text.delta',
        'response.output_text.done', 'response.content_part.done', 'response.output_item.done', 'response.completed',
    ]);
    const stream = sdk.responses.stream({ model: 'm1', input: 'Hi' });
    const deltas = [];
    stream.on('response.output_text.delta', (e) => deltas.push(e.snapshot));
    const r = await stream.finalResponse();
    assert.deepEqual(deltas, ['Grü', 'Grüße ', 'Grüße 世界']);
    assert.equal(r.output_text, 'Grüße 世界');
    assert.equal(r.usage.output_tokens, 7);
});

scenario('reasoning, text and two calls that alternate, streamed; and their outputs go back', async (t) => {
    const { fake, sdk } = await start(t);
    fake.always((rec) => {
        const w = new ChunkWriter(rec.json.model, true);
        const call = (index, more) => w.delta({ tool_calls: [{ index, ...more }] });
        rec.res.writeHead(200, { 'content-type': 'text/event-stream' });
        rec.res.end(
            w.role() + w.delta({ reasoning_content: 'I ' }) + w.delta({ reasoning_content: 'think.' }) + w.text('Look') + w.text('ing.') +
            call(0, { id: 'call_a', type: 'function', function: { name: 'look', arguments: '' } }) + call(1, { id: 'call_b', type: 'function', function: { name: 'look', arguments: '{"at"' } }) +
            call(0, { function: { arguments: '{"at":"Grü' } }) + call(1, { function: { arguments: ':"1"}' } }) + call(0, { function: { arguments: 'ße"}' } }) + w.end('tool_calls'),
        );
    });
    const input = [{ role: 'user', content: 'Hi' }];
    const ask = { model: 'm1', tools: [FUNCTION], tool_choice: 'required', parallel_tool_calls: true, reasoning: { effort: 'low', summary: 'auto' } };
    const { types, response, items } = checkEvents(await collect(await sdk.responses.create({ ...ask, input, stream: true })));
    assert.deepEqual(items.map((x) => x.type), ['reasoning', 'message', 'function_call', 'function_call']);
    assert.deepEqual(types.slice(2, 9), [
        'response.output_item.added', 'response.reasoning_summary_part.added', 'response.reasoning_summary_text.delta', 'response.reasoning_summary_text.delta',
        'response.reasoning_summary_text.done', 'response.reasoning_summary_part.done', 'response.output_item.done',
    ]);
    assert.deepEqual(items[0].summary, [{ type: 'summary_text', text: 'I think.' }]);
    assert.deepEqual(items.slice(2).map((c) => [c.call_id, c.name, JSON.parse(c.arguments)]), [['call_a', 'look', { at: 'Grüße' }], ['call_b', 'look', { at: '1' }]]);
    assert.equal(new Set(items.map((x) => x.id)).size, 4);
    assert.equal(response.status, 'completed');
    assert.deepEqual(response.tools, [FUNCTION]);
    assert.equal(fake.last.json.tool_choice, 'required');
    assert.deepEqual(fake.last.json.tools, [{ type: 'function', function: { name: 'look', description: 'Looks', parameters: FUNCTION.parameters, strict: true } }]);

    fake.always(play.ok({ text: 'done' }));
    const outputs = [['call_b', [{ type: 'input_text', text: 'B' }, { type: 'input_image', image_url: 'data:image/png;base64,iVBORw0=', detail: 'low' }]], ['call_a', 'A']].map(([call_id, output]) => ({ type: 'function_call_output', call_id, output }));
    const next = await sdk.responses.create({ ...ask, tool_choice: 'auto', input: [...input, ...items, ...outputs, { role: 'user', content: [{ type: 'input_text', text: 'go on' }] }] });
    assert.equal(next.output_text, 'done');
    const sent = fake.last.json.messages;
    assert.deepEqual(sent.map((m) => m.role).slice(0, 4), ['user', 'assistant', 'tool', 'tool']);
    assert.equal(sent[1].content, 'Looking.');
    assert.deepEqual(sent[1].tool_calls.map((c) => c.id), ['call_a', 'call_b']);
    assert.deepEqual(sent.slice(2, 4).map((m) => m.tool_call_id), ['call_a', 'call_b']);

    const orphan = await sdk.responses.create({ ...ask, input: [...input, outputs[1]] }).catch((e) => e);
    assert.equal(orphan.status, 400);
    assert.match(orphan.message, /No tool call found for function call output with call_id call_a/);
    const open = await sdk.responses.create({ ...ask, input: [...input, items[2]] }).catch((e) => e);
    assert.match(open.message, /No tool output found for function call call_a/);
});

scenario('pictures, files, a schema; members that this platform has no place for', async (t) => {
    const { fake, sdk, gw } = await start(t);
    fake.always(play.ok({ text: '{"a":1}' }));
    const schema = { type: 'object', properties: { a: { type: 'number' } }, required: ['a'], additionalProperties: false };
    const r = await sdk.responses.parse({
        model: 'm1',
        input: [{ role: 'developer', content: 'Look closely.' }, { role: 'user', content: [{ type: 'input_text', text: 'What?' }, { type: 'input_image', image_url: 'data:image/png;base64,iVBORw0=', detail: 'high' }, { type: 'input_file', filename: 'a.pdf', file_data: 'data:application/pdf;base64,JVBERi0=' }] }],
        text: { format: { type: 'json_schema', name: 'thing', schema, strict: true }, verbosity: 'low' },
    });
    assert.equal(r.output_text, '{"a":1}');
    const sent = fake.last.json;
    assert.deepEqual(sent.messages[1].content.map((p) => p.type), ['text', 'image_url', 'file']);
    assert.deepEqual(sent.messages[1].content[1].image_url, { url: 'data:image/png;base64,iVBORw0=', detail: 'high' });
    assert.deepEqual(sent.response_format, { type: 'json_schema', json_schema: { name: 'thing', schema, strict: true } });

    const dropped = await request(gw, { path: '/v1/responses', body: { model: 'm1', input: 'x', truncation: 'auto', max_tool_calls: 3 } });
    assert.equal(dropped.status, 200);
    assert.match(dropped.headers['x-chatmux-dropped'], /truncation/);
    for (const [more, words] of [
        [{ tools: [{ type: 'web_search' }] }, /web_search.*not supported/],
        [{ prompt: { id: 'pmpt_1' } }, /only OpenAI keeps/],
        [{ conversation: 'conv_1' }, /only OpenAI keeps/],
        [{ input: [{ type: 'computer_call', id: 'x' }] }, /computer_call/],
    ]) {
        const refused = await request(gw, { path: '/v1/responses', body: { model: 'm1', input: 'x', ...more } });
        assert.equal(refused.status, 400, JSON.stringify(more));
        assert.match(refused.error.message, words);
    }
});

scenario('answers that stay incomplete, refusals, and failures before and within a stream', async (t) => {
    const { fake, sdk } = await start(t, { config: { retry: { retries: 0, max_wait: 0 } } });
    const ask = (more) => sdk.responses.create({ model: 'm1', input: 'x', ...more });
    fake.next(play.ok({ text: 'half', finish: 'length' }));
    const cut = await ask({ max_output_tokens: 16 });
    assert.deepEqual([cut.status, cut.incomplete_details, cut.output[0].status], ['incomplete', { reason: 'max_output_tokens' }, 'incomplete']);
    fake.next(play.ok({ pieces: ['ha', 'lf'], finish: 'content_filter' }));
    const filtered = checkEvents(await collect(await ask({ stream: true })));
    assert.equal(filtered.types.at(-1), 'response.incomplete');
    assert.deepEqual(filtered.response.incomplete_details, { reason: 'content_filter' });

    fake.next(play.error(400, 'too long', { code: 'context_length_exceeded', param: 'messages' }));
    await assert.rejects(ask({}), (e) => e.status === 400 && e.code === 'context_length_exceeded');
    fake.next(play.rateLimited(30));
    await assert.rejects(ask({ stream: true }), (e) => e.status === 429 && e.code === 'rate_limit_exceeded' && e.headers.get('retry-after') === '30');
    await assert.rejects(ask({ model: 'nobody' }), (e) => e.status === 404 && e.code === 'model_not_found');
});

scenario('a stream that breaks off ends in error and response.failed, and the SDK’s helper raises', async (t) => {
    const { fake, sdk } = await start(t, { config: { retry: { retries: 0, max_wait: 0 } } });
    fake.always(play.cutMidStream({ pieces: ['one ', 'two'], how: 'end' }));
    const events = [];
    await assert.rejects(async () => {
        for await (const e of await sdk.responses.create({ model: 'm1', input: 'x', stream: true })) events.push(e);
    }, 'the connection ends without its last chunk');
    const seen = checkEvents(events);
    assert.deepEqual(seen.types.slice(-4), ['response.output_text.delta', 'response.output_text.delta', 'error', 'response.failed']);
    assert.deepEqual([seen.response.error.code, seen.response.usage], ['upstream_cut', null]);
    await assert.rejects(sdk.responses.stream({ model: 'm1', input: 'x' }).finalResponse());
});

scenario('a failure behind a head that went out early is a stream of its own', async (t) => {
    const { fake, gw } = await start(t, { config: { retry: { retries: 0, max_wait: 0 }, stream: { commit_after: '50ms', keepalive: '40ms' } } });
    fake.always(play.after(150, play.error(500, 'oops', { type: 'server_error' })));
    const text = await new Promise((done) => {
        let said = '';
        const req = http.request(`${gw.base}/responses`, { method: 'POST', headers: { authorization: `Bearer ${CLIENT_KEY}`, 'content-type': 'application/json' }, agent: false }, (res) => res.setEncoding('utf8').on('data', (piece) => (said += piece)).on('error', () => done(said)));
        req.end(JSON.stringify({ model: 'm1', input: 'x', stream: true }));
    });
    assert.match(text, /^: keep-alive/);
    assert.deepEqual(checkEvents(readEvents(text)).types, ['response.created', 'response.in_progress', 'error', 'response.failed']);
});

scenario('mistakes of the client are named', async (t) => {
    const { gw, fake } = await start(t);
    for (const [body, param, code] of [
        [{ model: 'm1' }, 'input', 'missing_required_parameter'],
        [{ input: 'x' }, 'model', 'missing_required_parameter'],
        [{ model: 'm1', input: 7 }, 'input', 'invalid_type'],
        [{ model: 'm1', input: [{ role: 'tool', content: 'x' }] }, 'input[0].role', 'invalid_value'],
        [{ model: 'm1', input: [{ role: 'user', content: [{ type: 'input_text' }] }] }, 'input[0].content[0].text', 'missing_required_parameter'],
        [{ model: 'm1', input: [{ role: 'user', content: [{ type: 'input_image', image_url: 'ftp://x' }] }] }, 'input[0].content[0].image_url', 'invalid_value'],
        [{ model: 'm1', input: 'x', temperature: 3 }, 'temperature', 'decimal_above_max_value'],
        [{ model: 'm1', input: 'x', max_output_tokens: 0 }, 'max_output_tokens', 'integer_below_min_value'],
        [{ model: 'm1', input: 'x', tools: [{ type: 'function', name: 'a b' }] }, 'tools[0].name', 'invalid_value'],
        [{ model: 'm1', input: 'x', tools: [FUNCTION], tool_choice: { type: 'function', name: 'other' } }, 'tool_choice', 'invalid_value'],
        [{ model: 'm1', input: 'x', text: { format: { type: 'json_schema', name: 'x' } } }, 'text.format.schema', 'missing_required_parameter'],
        [{ model: 'm1', input: 'x', truncation: 'yes' }, 'truncation', 'invalid_value'],
    ]) {
        const r = await request(gw, { path: '/v1/responses', body });
        assert.equal(r.status, 400, JSON.stringify(body));
        assert.deepEqual([r.error.param, r.error.code], [param, code], r.text);
    }
    assert.equal(fake.requests.length, 0);
});
