// What a stream of the Responses API must look like, written from the dialect's documentation: every event checked against the ones before it.
import assert from 'node:assert/strict';

const PARTS = { output_text: 'response.output_text', refusal: 'response.refusal' };

/** Checks the events of one whole stream and returns what they add up to: {types, response, items, ended}. */
export function checkEvents(events) {
    const items = [];
    let open = null; // the item that has been added and is not done
    let end = null;
    const at = (i) => `event ${i}: ${JSON.stringify(events[i]).slice(0, 300)}`;
    events.forEach((e, i) => {
        assert.equal(e.sequence_number, i, at(i));
        assert.equal(end, null, `something behind the end, ${at(i)}`);
        if (i < 2) {
            assert.equal(e.type, ['response.created', 'response.in_progress'][i], at(i));
            assert.equal(e.response.status, 'in_progress', at(i));
            assert.deepEqual(e.response.output, [], at(i));
            assert.equal(e.response.usage, null, at(i));
            assert.equal(e.response.id, events[0].response.id, at(i));
            return;
        }
        if ('item_id' in e) {
            assert.ok(open, at(i));
            assert.equal(e.item_id, open.item.id, at(i));
        }
        if ('output_index' in e && e.type !== 'response.output_item.added') assert.equal(e.output_index, items.length, at(i));
        if ('content_index' in e && e.type !== 'response.content_part.added') assert.equal(e.content_index, open.item.content.length - (open.part ? 0 : 1) + (open.part ? 0 : 0), at(i));
        switch (e.type) {
            case 'response.output_item.added':
                assert.equal(open, null, `items overlap, ${at(i)}`);
                assert.equal(e.output_index, items.length, at(i));
                open = { item: structuredClone(e.item), text: '', part: null };
                if (e.item.type !== 'reasoning') assert.equal(e.item.status, 'in_progress', at(i));
                break;
            case 'response.content_part.added':
                assert.equal(open.item.type, 'message', at(i));
                assert.equal(open.part, null, at(i));
                assert.equal(e.content_index, open.item.content.length, at(i));
                open.part = e.part;
                open.text = '';
                break;
            case 'response.output_text.delta':
            case 'response.refusal.delta':
                assert.equal(e.type, `${PARTS[open.part.type]}.delta`, at(i));
                open.text += e.delta;
                break;
            case 'response.output_text.annotation.added':
                assert.equal(open.part.type, 'output_text', at(i));
                assert.equal(e.annotation_index, open.part.annotations.length, at(i));
                open.part.annotations.push(e.annotation);
                break;
            case 'response.output_text.done':
                assert.equal(open.part.type, 'output_text', at(i));
                assert.equal(e.text, open.text, at(i));
                open.said = e.text;
                break;
            case 'response.refusal.done':
                assert.equal(open.part.type, 'refusal', at(i));
                assert.equal(e.refusal, open.text, at(i));
                open.said = e.refusal;
                break;
            case 'response.content_part.done':
                assert.equal(e.part.text ?? e.part.refusal, open.said, `part done before its text, ${at(i)}`);
                if (e.part.type === 'output_text') assert.deepEqual(e.part.annotations, open.part.annotations, at(i));
                open.item.content.push(e.part);
                open.part = open.said = null;
                break;
            case 'response.function_call_arguments.delta':
                assert.equal(open.item.type, 'function_call', at(i));
                open.text += e.delta;
                break;
            case 'response.function_call_arguments.done':
                assert.equal(e.arguments, open.text, at(i));
                open.item.arguments = e.arguments;
                break;
            case 'response.reasoning_summary_part.added':
                assert.equal(open.item.type, 'reasoning', at(i));
                assert.equal(e.summary_index, open.item.summary.length, at(i));
                open.text = '';
                break;
            case 'response.reasoning_summary_text.delta':
                open.text += e.delta;
                break;
            case 'response.reasoning_summary_text.done':
                assert.equal(e.text, open.text, at(i));
                break;
            case 'response.reasoning_summary_part.done':
                assert.equal(e.part.text, open.text, at(i));
                open.item.summary.push(e.part);
                break;
            case 'response.output_item.done': {
                assert.equal(open.part, null, at(i));
                const { status, ...item } = e.item;
                const { status: begun, ...built } = open.item;
                assert.deepEqual(item, built, at(i));
                if (item.type !== 'reasoning') assert.match(status, /^(completed|incomplete)$/, `${begun}, ${at(i)}`);
                items.push(e.item);
                open = null;
                break;
            }
            case 'error':
                assert.ok(e.message.length > 0, at(i));
                assert.ok('code' in e && 'param' in e, at(i));
                break;
            case 'response.failed':
                assert.equal(events[i - 1].type, 'error', at(i));
                assert.equal(e.response.status, 'failed', at(i));
                assert.ok(e.response.error.code && e.response.error.message, at(i));
                end = e;
                break;
            case 'response.completed':
            case 'response.incomplete':
                assert.equal(open, null, `an item is not done, ${at(i)}`);
                assert.equal(`response.${e.response.status}`, e.type, at(i));
                assert.deepEqual(e.response.output, items, 'the last event repeats the items');
                assert.equal(e.response.usage.total_tokens, e.response.usage.input_tokens + e.response.usage.output_tokens, at(i));
                end = e;
                break;
            default:
                assert.fail(`unknown ${at(i)}`);
        }
    });
    if (end) assert.equal(end.response.id, events[0].response.id);
    return { types: events.map((e) => e.type), response: end?.response ?? null, items, text: items.flatMap((x) => x.content ?? []).map((p) => p.text ?? '').join('') };
}

/** The events of a raw body, whose `event:` lines must say what the data say. */
export function readEvents(text) {
    return text
        .split('\n\n')
        .filter((block) => /^(event|data):/m.test(block)) // all else a reader of such streams leaves out
        .map((block) => {
            const [, event, data] = /^event: (.*)\ndata: (.*)$/.exec(block) ?? assert.fail(`no event: ${block.slice(0, 200)}`);
            const e = JSON.parse(data);
            assert.equal(e.type, event);
            return e;
        });
}
