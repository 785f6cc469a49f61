// The platform of the long run, in a process of its own: answers in pieces, and meets a share of the requests with a fault. Forgets what it has answered.
//   node steady_upstream.mjs SEED FAULTS     FAULTS: of a thousand requests; prints its port, and at the end of its input what it has done
import http from 'node:http';

const [seed, faults] = process.argv.slice(2).map(Number);
const counts = {};

/** mulberry32: small, seedable. */
let state = seed;
function random() {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
}

const USAGE = { prompt_tokens: 10, completion_tokens: 12, total_tokens: 22 };
const chunk = (choices, usage) => `data: ${JSON.stringify({ id: 'c', object: 'chat.completion.chunk', created: 1, model: 'm1', choices, ...(usage && { usage }) })}\n\n`;
const delta = (d, finish = null) => chunk([{ index: 0, delta: d, finish_reason: finish }]);
const ERROR = 'data: {"error":{"message":"overloaded","type":"server_error","code":"overloaded"}}\n\n';
const error = (res, status, headers = {}) => {
    res.writeHead(status, { 'content-type': 'application/json', ...headers });
    res.end('{"error":{"message":"no","type":"server_error","code":null,"param":null}}');
};
const HTML = '<!doctype html><title>Sign in</title>';

/** Words "w0 w1 … " behind "A:n ", n of them, so that a reader knows whether all are there. */
const words = (n) => [`A:${n} `, ...Array.from({ length: n }, (_, i) => `w${i} `)];

/** Sends the pieces 20 ms apart, then calls done. */
function pieces(res, list, done) {
    let at = 0;
    const next = () => {
        if (res.destroyed) return;
        if (at === list.length) return done();
        res.write(list[at++]);
        setTimeout(next, 20);
    };
    next();
}

const FAULTS = {
    limited: (res) => error(res, 429, { 'retry-after': '1' }),
    down: (res) => error(res, [500, 502, 503][Math.floor(random() * 3)]),
    html: (res) => res.writeHead(200, { 'content-type': 'text/html' }).end(HTML),
    'no answer': (res) => res.socket.destroy(),
    hang: () => {},
    'cut behind the head': (res, stream) => {
        res.writeHead(200, { 'content-type': stream ? 'text/event-stream' : 'application/json' }).flushHeaders();
        setTimeout(() => res.socket?.destroy(), 10);
    },
    empty: (res, stream) => res.writeHead(200, { 'content-type': stream ? 'text/event-stream' : 'application/json' }).end(),
    garbage: (res) => res.writeHead(200, { 'content-type': 'text/event-stream' }).end('data: {"choices":[{"del\n\n{{{\n\n'),
    'an error first': (res, stream) => res.writeHead(200, { 'content-type': stream ? 'text/event-stream' : 'application/json' }).end(stream ? delta({ role: 'assistant', content: '' }) + ERROR : ERROR.slice(6)),
    'cut in the middle': (res, stream, text) => middle(res, stream, text, () => res.socket?.destroy()),
    'an error in the middle': (res, stream, text) => middle(res, stream, text, () => res.end(ERROR)),
    'ends early': (res, stream, text) => middle(res, stream, text, () => res.end()),
    'silent in the middle': (res, stream, text) => middle(res, stream, text, () => {}),
};

function middle(res, stream, text, then) {
    res.writeHead(200, { 'content-type': stream ? 'text/event-stream' : 'application/json' });
    if (stream) pieces(res, [delta({ role: 'assistant', content: '' }), ...text.slice(0, 1 + Math.floor(random() * (text.length - 1))).map((content) => delta({ content }))], then);
    else {
        res.write('{"id":"c","object":"chat.completion","choices":[{"index":0,"mess');
        setTimeout(then, 30);
    }
}

function answer(res, stream, text) {
    if (!stream) {
        res.writeHead(200, { 'content-type': 'application/json' });
        res.end(JSON.stringify({ id: 'c', object: 'chat.completion', created: 1, model: 'm1', choices: [{ index: 0, message: { role: 'assistant', content: text.join('') }, finish_reason: 'stop' }], usage: USAGE }));
        return;
    }
    res.writeHead(200, { 'content-type': 'text/event-stream' });
    pieces(res, [delta({ role: 'assistant', content: '' }), ...text.map((content) => delta({ content }))], () => res.end(delta({}, 'stop') + chunk([], USAGE) + 'data: [DONE]\n\n'));
}

const server = http.createServer((req, res) => {
    let body = '';
    res.on('error', () => {});
    req.setEncoding('utf8').on('data', (piece) => (body += piece)).on('end', () => {
        const stream = JSON.parse(body).stream === true;
        const text = words(1 + Math.floor(random() * 12));
        const names = Object.keys(FAULTS);
        const fault = random() * 1000 < faults ? names[Math.floor(random() * names.length)] : 'none';

        counts[fault] = (counts[fault] ?? 0) + 1;
        if (fault === 'none') answer(res, stream, text);
        else FAULTS[fault](res, stream, text);
    }).on('error', () => {});
});
server.keepAliveTimeout = 60_000;
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.resume().on('end', () => {
    console.log(JSON.stringify(counts));
    process.exit(0);
});
