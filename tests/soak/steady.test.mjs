// A steady load for a long time: 500 requests a second of which 5 % meet a fault of the platform, every dialect, clients that leave.
// Memory at its end is within 5 % of what it was after the first minute, and no stream ends without saying how.
//   MINUTES=30   how long   RATE=500   requests a second   FAULTS=50   of a thousand   SEED=n   the platform's dice
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { CLIENT_KEY, atEnd, scenario, startGateway } from '../lib/gateway.mjs';
import { GEMINI_ARRAY, SURFACES, sse } from '../lib/surfaces.mjs';

const MINUTES = Number(process.env.MINUTES ?? 30);
const RATE = Number(process.env.RATE ?? 500);
const FAULTS = Number(process.env.FAULTS ?? 50);
const SEED = Number(process.env.SEED ?? Date.now() % 1_000_000);
const TICK_MS = 20;
const ACCOUNTS = Array.from({ length: 40 }, (_, i) => `sk-up-${i + 1}`);

async function startUpstream(t) {
    const child = spawn(process.execPath, [fileURLToPath(new URL('steady_upstream.mjs', import.meta.url)), String(SEED), String(FAULTS)], { stdio: ['pipe', 'pipe', 'inherit'] });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    atEnd(t, () => child.kill());
    return {
        port: Number((await lines.next()).value),
        counts: async () => {
            child.stdin.end();
            return JSON.parse((await lines.next()).value);
        },
    };
}

// ---- what the kernel says of the gateway

const TICKS = 100; // of CPU time, in a second
const rss = (pid) => Number(/^Rss:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))[1]) * 1024; // statm is megabytes off at times
const cpuSeconds = (pid) => {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
    return (Number(fields[11]) + Number(fields[12])) / TICKS;
};

// ---- clients

const agent = new http.Agent({ keepAlive: true, maxSockets: Infinity });

/** "whole", "cut", "error 503", "left", or what is wrong with it: "ILLEGAL …". */
function ask(gw, surface, stream, leaveMs) {
    return new Promise((done) => {
        let text = '';
        let left = false;
        const req = http.request(`${gw.url}${surface.path(stream)}`, { method: 'POST', headers: { 'content-type': 'application/json', authorization: `Bearer ${CLIENT_KEY}` }, agent }, (res) => {
            const end = () => done(left ? 'left' : judge(surface, stream, res.statusCode, text, res.complete));
            res.setEncoding('utf8').on('data', (piece) => (text += piece)).on('close', end).on('error', () => {});
        });
        req.on('error', (error) => done(left ? 'left' : `ILLEGAL ${error.message}`));
        req.end(JSON.stringify(surface.body(stream)));
        if (leaveMs > 0)
            setTimeout(() => {
                left = true;
                req.destroy();
            }, leaveMs);
    });
}

/** "A:3 w0 w1 w2 ", or its beginning. */
function wrongText(text, whole) {
    if (text === '' && !whole) return false;
    const [head, ...words] = text.trimEnd().split(' ');
    return words.some((w, i) => w !== `w${i}`) || (whole && head !== `A:${words.length}`);
}

function judge(surface, stream, status, text, clean) {
    try {
        if (status !== 200) return JSON.parse(text) && clean ? `error ${status}` : `ILLEGAL error ${status}: ${text}`;
        if (!stream) return clean && !wrongText(surface.text(JSON.parse(text)), true) ? 'whole' : `ILLEGAL answer: ${text}`;
        const events = (surface.events ?? sse)(text);
        const [isDone, isError] = [surface.isDone(events), surface.isError(events)];
        if (clean !== isDone || clean === isError || wrongText(surface.streamedText(events), clean)) return `ILLEGAL stream (clean: ${clean}): ${text}`;
        return clean ? 'whole' : 'cut';
    } catch (error) {
        return `ILLEGAL ${error.message}: ${text}`;
    }
}

// ---- the run

scenario(`${MINUTES} minutes at ${RATE} requests a second, ${FAULTS / 10} % faults (SEED=${SEED})`, { timeout: (MINUTES + 3) * 60_000 }, async (t) => {
    const upstream = await startUpstream(t);
    const gw = await startGateway(t, {
        config: {
            log: { level: 'error', access: 'no' },
            upstream: { connect_timeout: '5s', first_token_timeout: '8s', idle_timeout: '8s', response_timeout: '8s', on_disconnect: 'drain', drain_time: '2s' },
            stream: { commit_after: '1s', keepalive: '1s' },
            'provider up': { type: 'openai', base_url: `http://127.0.0.1:${upstream.port}/v1`, credentials: ACCOUNTS, models: ['m1'], 'x.tasks': 'chat' },
        },
    });
    const { pid } = gw.child;
    const surfaces = [...Object.values(SURFACES), GEMINI_ARRAY];
    const seen = {};
    const illegal = [];
    let [asked, open] = [0, 0];

    const one = async () => {
        const n = asked++;
        open++;
        const outcome = await ask(gw, surfaces[n % surfaces.length], n % 5 < 3, n % 100 === 7 ? 1 + (n % 300) : 0);
        open--;
        const kind = outcome.startsWith('ILLEGAL') ? 'ILLEGAL' : outcome;
        seen[kind] = (seen[kind] ?? 0) + 1;
        if (kind === 'ILLEGAL' && illegal.push(outcome) === 1) console.log(outcome.slice(0, 2000));
    };

    /** Asks until then; the mean of what is resident in the last half minute, as one sample may meet a burst. */
    const load = async (untilMs) => {
        const samples = [];
        let sampleMs = untilMs - 30_000;
        for (let now = performance.now(); now < untilMs; now = performance.now()) {
            for (const due = Math.floor(((now - began) / 1000) * RATE); asked < due; ) void one();
            for (; now > sampleMs; sampleMs += 1000) samples.push(rss(pid));
            await sleep(TICK_MS);
        }
        return samples.reduce((sum, x) => sum + x, 0) / samples.length;
    };

    const began = performance.now();
    const memory = [];
    for (let minute = 1, cpu = cpuSeconds(pid); minute <= MINUTES; minute++) {
        memory.push(await load(began + minute * 60_000));
        const now = cpuSeconds(pid);
        console.log(`minute ${minute}: ${(memory.at(-1) / 1048576).toFixed(2)} MiB resident, ${(((now - cpu) / 60) * 100).toFixed(1)} % CPU, ${asked} asked, ${open} open, ${JSON.stringify(seen)}`);
        cpu = now;
    }
    for (let waited = 0; open > 0 && waited < 20_000; waited += 100) await sleep(100);
    const metrics = await gw.metrics();
    console.log(`faults of the platform: ${JSON.stringify(await upstream.counts())}`);
    agent.destroy();

    assert.equal(open, 0, 'every client got its answer');
    assert.deepEqual(illegal.slice(0, 3), [], `${illegal.length} streams or answers ended illegally`);
    assert.equal(metrics.get('chatmux_streams_open'), 0);
    assert.ok((seen.whole ?? 0) > 0.95 * asked, `${seen.whole} of ${asked} answered well`);
    const growth = memory.at(-1) / memory[0] - 1;
    console.log(`memory at the end is ${(growth * 100).toFixed(2)} % above its value after the first minute`);
    assert.ok(growth <= 0.05, `memory grew by ${(growth * 100).toFixed(1)} %: ${memory.map((m) => (m / 1048576).toFixed(2)).join(' ')} MiB`);
});
