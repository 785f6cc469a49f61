// How each dialect of clients asks, answers and fails; for tests that go through all of them.
import http from 'node:http';
import { CLIENT_KEY } from './gateway.mjs';

const ask = 'Name a colour.';
export const sse = (text) =>
    text
        .split(/\r?\n\r?\n/)
        .filter((block) => /^data: /m.test(block))
        .map((block) => ({ event: block.match(/^event: (.*)$/m)?.[1], data: block.match(/^data: (.*)$/m)[1] }));
const json = (events) => events.filter((e) => e.data !== '[DONE]').map((e) => JSON.parse(e.data));

export const SURFACES = {
    'chat/completions': {
        path: () => '/v1/chat/completions',
        body: (stream) => ({ model: 'm1', stream, messages: [{ role: 'user', content: ask }] }),
        text: (whole) => whole.choices[0].message.content,
        streamedText: (events) => json(events).map((e) => e.choices?.[0]?.delta.content ?? '').join(''),
        isDone: (events) => events.at(-1)?.data === '[DONE]',
        isError: (events) => json(events).at(-1)?.error?.message.length > 0,
    },
    completions: {
        provider: { 'x.tasks': 'chat' }, // made by chat: the platform of these tests has nothing else
        path: () => '/v1/completions',
        body: (stream) => ({ model: 'm1', stream, prompt: ask }),
        text: (whole) => whole.choices[0].text,
        streamedText: (events) => json(events).map((e) => e.choices?.[0]?.text ?? '').join(''),
        isDone: (events) => events.at(-1)?.data === '[DONE]',
        isError: (events) => json(events).at(-1)?.error?.message.length > 0,
    },
    responses: {
        path: () => '/v1/responses',
        body: (stream) => ({ model: 'm1', stream, input: ask }),
        text: (whole) => whole.output[0].content[0].text,
        streamedText: (events) => json(events).map((e) => (e.type === 'response.output_text.delta' ? e.delta : '')).join(''),
        isDone: (events) => events.at(-1)?.event === 'response.completed',
        isError: (events) => events.at(-2)?.event === 'error' && json(events).at(-2).message.length > 0 && json(events).at(-1).response.status === 'failed',
    },
    messages: {
        path: () => '/v1/messages',
        body: (stream) => ({ model: 'm1', stream, max_tokens: 100, messages: [{ role: 'user', content: ask }] }),
        text: (whole) => whole.content.map((c) => c.text).join(''),
        streamedText: (events) => json(events).map((e) => e.delta?.text ?? '').join(''),
        isDone: (events) => events.at(-1)?.event === 'message_stop',
        isError: (events) => events.at(-1)?.event === 'error' && json(events).at(-1).error.message.length > 0,
    },
    generateContent: {
        path: (stream) => `/v1beta/models/m1:${stream ? 'streamGenerateContent?alt=sse' : 'generateContent'}`,
        body: () => ({ contents: [{ parts: [{ text: ask }] }] }),
        text: (whole) => whole.candidates[0].content.parts.map((p) => p.text).join(''),
        streamedText: (events) => json(events).map((e) => e.candidates?.[0].content.parts.map((p) => p.text).join('') ?? '').join(''),
        isDone: (events) => json(events).at(-1)?.candidates?.[0].finishReason === 'STOP',
        isError: (events) => json(events).at(-1)?.error?.message.length > 0,
    },
};

/** A stream of Gemini's that is one JSON array: its elements as events. */
export const GEMINI_ARRAY = {
    ...SURFACES.generateContent,
    path: (stream) => `/v1beta/models/m1:${stream ? 'streamGenerateContent' : 'generateContent'}`,
    events: (text) => JSON.parse(text).map((e) => ({ data: JSON.stringify(e) })),
};

/** {status, text, clean}: clean = the message was complete by its framing. */
export function post(gw, path, body) {
    return new Promise((done) => {
        const req = http.request(`${gw.url}${path}`, { method: 'POST', headers: { 'content-type': 'application/json', authorization: `Bearer ${CLIENT_KEY}` }, agent: false }, (res) => {
            let text = '';
            const end = () => done({ status: res.statusCode, headers: res.headers, text, clean: res.complete });
            res.setEncoding('utf8').on('data', (piece) => (text += piece)).on('end', end).on('error', end);
        });
        req.on('error', (error) => done({ status: 0, text: String(error), clean: false }));
        req.end(JSON.stringify(body));
    });
}
