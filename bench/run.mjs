// Side by side on one core: nginx as a bare reverse proxy, and chatmux with authentication, routing, metering and
// access log. The fake upstream and the load generator share another core. Rounds alternate between the two, the
// median of the rounds counts. No figure makes it fail; what cannot be measured is said so in the table.

import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync, statSync, statfsSync,
    truncateSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import os from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'

const quick = Boolean(process.env.QUICK && process.env.QUICK !== '0')
const plan = quick
    ? { rounds: 2, seconds: 1, held: [3000, 9000], settleMs: 1500, starts: 5, capacitySeconds: 1,
        capacity: [[1, 200], [16, 10_000], [128, 50_000]], streams: [16, 128], laneRounds: 1 }
    : { rounds: 7, seconds: 3, held: [3000, 9000], settleMs: 4000, starts: 15, capacitySeconds: 2,
        capacity: [1, 16, 128].flatMap((c) => [200, 10_000, 50_000].map((bytes) => [c, bytes])),
        streams: [1, 16, 128], laneRounds: 5 }
const logRows = Number(process.env.LOG_ROWS ?? (quick ? 400_000 : 10_000_000))
const dialects = ['openai', 'anthropic', 'gemini']
const laneDeltas = [20, 220]
const openRate = 1000
const openConnections = 64
const closedConnections = 50
const pacedConnections = 64
const capacityDeltas = 31
const pacedUs = 10_000

const chatmuxBin = process.env.CHATMUX_BIN ?? 'build/release/chatmux'
const benchBin = process.env.BENCH_BIN ?? 'build/release/bench'
const key = 'sk-bench'
const adminSecret = 'adm-bench'
const model = 'bench'
const dir = mkdtempSync(join(os.tmpdir(), 'chatmux-bench-'))
const running = new Set()

const say = (text) => process.stderr.write(`bench: ${text}\n`)

// --- cores ------------------------------------------------------------------------------------------

// "0-3,8" as the kernel writes it.
function allowedCpus() {
    const list = /^Cpus_allowed_list:\s*(\S+)/m.exec(readFileSync('/proc/self/status', 'utf8'))[1]
    return list.split(',').flatMap((part) => {
        const [first, last = first] = part.split('-').map(Number)
        return Array.from({ length: last - first + 1 }, (_, i) => first + i)
    })
}

const cpus = allowedCpus()
const targetCpu = cpus[0]
const otherCpu = cpus[1] ?? cpus[0]

// --- processes ----------------------------------------------------------------------------------------

function start(cpu, command, args, options = {}) {
    const stdio = ['ignore', 'pipe', 'inherit']
    const child = spawn('taskset', ['-c', String(cpu), command, ...args], { stdio, ...options })
    running.add(child)
    child.ended = new Promise((resolve, reject) => {
        child.on('error', reject)
        child.on('close', (code) => {
            running.delete(child)
            resolve(code)
        })
    })
    child.ended.catch(() => {})
    return child
}

async function stop(child) {
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), 5000)
    await child.ended
    clearTimeout(timer)
}

function firstLine(child) {
    return new Promise((resolve, reject) => {
        createInterface({ input: child.stdout })
            .once('line', resolve)
            .once('close', () => reject(new Error(`${child.spawnargs.slice(3).join(' ')} ended early`)))
    })
}

async function freePort() {
    const server = createServer()
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address()
    await new Promise((resolve) => server.close(resolve))
    return port
}

const read = (file) => {
    try {
        return readFileSync(file, 'utf8')
    } catch {
        return ''
    }
}

const tasks = (pid) => {
    try {
        return readdirSync(`/proc/${pid}/task`)
    } catch {
        return []
    }
}

// The process and all that it started, itself first.
function family(pid) {
    const children = tasks(pid).flatMap((tid) => read(`/proc/${pid}/task/${tid}/children`).split(' ').filter(Boolean))
    return [pid, ...children.flatMap(family)]
}

// User and system time so far in microseconds: the scheduler's own sum in nanoseconds, where the kernel tells it;
// it is what /proc/PID/stat shows rounded to hundredths of a second.
function cpuUs(pid) {
    let us = 0
    for (const member of family(pid)) {
        const exact = tasks(member).map((tid) => Number(read(`/proc/${member}/task/${tid}/schedstat`).split(' ')[0]))
        if (exact.some((ns) => ns > 0)) {
            us += exact.reduce((sum, ns) => sum + ns, 0) / 1000
        } else {
            const fields = read(`/proc/${member}/stat`).split(') ').pop().split(' ')
            us += (Number(fields[11]) + Number(fields[12])) * 10_000
        }
    }
    return us
}

// KiB.
function memory(pid) {
    const sum = { resident: 0, anonymous: 0 }
    for (const member of family(pid)) {
        const rollup = read(`/proc/${member}/smaps_rollup`)
        sum.resident += Number(/^Rss:\s*(\d+)/m.exec(rollup)?.[1] ?? 0)
        sum.anonymous += Number(/^Anonymous:\s*(\d+)/m.exec(rollup)?.[1] ?? 0)
    }
    return sum
}

// --- the upstream and the two targets ------------------------------------------------------------------

const upstream = start(otherCpu, join(benchBin, 'upstream'), ['0'])
const upstreamPort = Number(await firstLine(upstream))

async function answerWith(settings) {
    const all = { deltas: 20, interval_us: 0, delay_us: 0, text_bytes: 12, ...settings }
    await fetch(`http://127.0.0.1:${upstreamPort}/set?${new URLSearchParams(all)}`)
}

const nginx = {
    name: 'nginx',
    port: await freePort(),
    log: join(dir, 'nginx.log'),
    configure() {
        const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
            .map((kind) => `    ${kind}_temp_path ${dir}/nginx-${kind};`).join('\n')
        writeFileSync(join(dir, 'nginx.conf'), `daemon off;
worker_processes 1;
worker_rlimit_nofile 60000;
pid ${dir}/nginx.pid;
error_log ${dir}/nginx.log;
events {
    worker_connections 30000;
}
http {
    access_log off;
    keepalive_timeout 600;
    keepalive_requests 1000000000;
    client_body_buffer_size 256k;
${temporary}
    upstream platform {
        server 127.0.0.1:${upstreamPort};
        keepalive 10000;
        keepalive_requests 1000000000;
    }
    server {
        listen 127.0.0.1:${this.port} backlog=4096;
        location / {
            proxy_pass http://platform;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 600;
        }
    }
}
`)
    },
    command: ['nginx', '-e', join(dir, 'nginx.log'), '-c', join(dir, 'nginx.conf')],
}

const chatmux = {
    name: 'chatmux',
    port: await freePort(),
    log: join(dir, 'chatmux.log'),
    configure() {
        writeFileSync(join(dir, 'chatmux.ini'), `[server]
listen = 127.0.0.1:${this.port}
[auth]
admin_secret = ${adminSecret}
[store]
state_dir = ${dir}
[log]
level = info
access = yes
[provider upstream]
type = openai
base_url = http://127.0.0.1:${upstreamPort}/v1
credentials = sk-upstream
models = ${model}, over-openai
[provider anthropic]
type = anthropic
base_url = http://127.0.0.1:${upstreamPort}
credentials = sk-upstream
models = over-anthropic
[provider gemini]
type = gemini
base_url = http://127.0.0.1:${upstreamPort}
credentials = sk-upstream
models = over-gemini
${[model, ...dialects.map((name) => `over-${name}`)].map((name) => `[price ${name}]\ninput = 0.1\noutput = 0.4\n`).join('')}`)
    },
    // A stored key with every limit there is, each too high to be met; later starts find it in the store.
    async prepare() {
        if (this.prepared)
            return
        const limits = { rpm: 1_000_000_000, tpm: 1_000_000_000, max_parallel: 1_000_000, budget_usd: 1_000_000, budget_period: 'month' }
        const answer = await fetch(`http://127.0.0.1:${this.port}/admin/api/keys`, {
            method: 'POST',
            headers: { authorization: `Bearer ${adminSecret}`, 'content-type': 'application/json' },
            body: JSON.stringify({ name: 'bench', key, ...limits }),
        })
        if (answer.status !== 201)
            throw new Error(`${this.name} does not take a key: ${await answer.text()}`)
        this.prepared = true
    },
    command: [chatmuxBin, 'serve', '-c', join(dir, 'chatmux.ini')],
}

const request = {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model, messages: [{ role: 'user', content: 'hi' }] }),
}

async function untilServed(target, path, options = {}) {
    for (let tries = 0; ; tries++) {
        const answer = await fetch(`http://127.0.0.1:${target.port}${path}`, options).catch(() => null)
        await answer?.arrayBuffer()
        if (answer?.ok)
            return
        if (tries > 100 || target.child.exitCode !== null)
            throw new Error(`${target.name} does not serve: ${read(target.log).slice(-600)}`)
        await sleep(50)
    }
}

async function startTarget(target, { warm = true } = {}) {
    target.configure()
    const log = openSync(target.log, 'a')
    target.child = start(targetCpu, target.command[0], target.command.slice(1), { stdio: ['ignore', log, log] })
    closeSync(log)
    if (target.prepare) {
        await untilServed(target, '/healthz')
        await target.prepare()
    }
    if (warm)
        await untilServed(target, '/v1/chat/completions', request)
}

// --- one measurement -----------------------------------------------------------------------------------

const loadArgs = (target, args) => ['--key', key, '--model', model, ...args.map(String), String(target.port)]

async function load(target, ...args) {
    truncateSync(target.log)
    const child = start(otherCpu, join(benchBin, 'load'), loadArgs(target, args))
    const line = await firstLine(child)
    await child.ended
    const result = JSON.parse(line)
    if (result.failed > 0) {
        problems.add(`${target.name}: ${result.failed} of ${result.failed + result.answered} requests failed` +
            ` (${args.join(' ')}; last status ${result.last_bad_status})`)
    }
    return result
}

async function loadWithCpu(target, ...args) {
    const before = cpuUs(target.child.pid)
    const result = await load(target, ...args)
    return { ...result, cpu: (cpuUs(target.child.pid) - before) / Math.max(1, result.answered) }
}

// KiB for each of `count` streams, by growth of the resident size of a fresh process. Fails when the machine does not
// let anybody hold so many.
async function hold(target, count) {
    await startTarget(target)
    const before = memory(target.child.pid)
    const child = start(otherCpu, join(benchBin, 'load'), loadArgs(target, ['--hold', '--connections', count]),
        { stdio: ['pipe', 'pipe', 'inherit'] })
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    const first = await lines.next()
    if (first.done) {
        await stop(target.child)
        throw new Error(`${target.name} could not hold ${count} streams`)
    }
    const { held } = JSON.parse(first.value)
    const cpu = cpuUs(target.child.pid)
    const begun = performance.now()
    await sleep(plan.settleMs)
    const share = (cpuUs(target.child.pid) - cpu) / 1000 / (performance.now() - begun)
    const after = memory(target.child.pid)
    child.stdin.end()
    const end = JSON.parse((await lines.next()).value)
    await child.ended
    await stop(target.child)
    if (held < count || end.failed > 0)
        problems.add(`${target.name}: of ${count} streams ${held} were held (last status ${end.last_bad_status})`)
    return { each: (after.resident - before.resident) / Math.max(1, held), share, gap: end.gap }
}

const problems = new Set()
const sorted = (values) => [...values].sort((a, b) => a - b)
const median = (values) => {
    const s = sorted(values)
    return s.length % 2 ? s[(s.length - 1) / 2] : (s[s.length / 2 - 1] + s[s.length / 2]) / 2
}

// --- the parts -------------------------------------------------------------------------------------------

// { json, open, burst, paced } of each target, each a list with one result for each round.
async function measureCost(targets) {
    const results = {}
    for (const target of targets) {
        await startTarget(target)
        results[target.name] = { json: [], open: [], burst: [], paced: [] }
    }
    for (let round = 1; round <= plan.rounds; round++) {
        say(`cost, round ${round} of ${plan.rounds}`)
        for (const target of round % 2 ? targets : [...targets].reverse()) {
            const result = results[target.name]
            const closed = ['--seconds', plan.seconds, '--connections', closedConnections]
            await answerWith({})
            result.json.push(await loadWithCpu(target, ...closed))
            result.open.push(await loadWithCpu(target, '--seconds', plan.seconds, '--connections', openConnections,
                '--rate', openRate))
            result.burst.push(await loadWithCpu(target, ...closed, '--stream'))
            await answerWith({ interval_us: pacedUs })
            result.paced.push(await loadWithCpu(target, '--seconds', plan.seconds, '--connections', pacedConnections,
                '--stream'))
        }
    }
    return results
}

// [{ client, upstream, json, stream, delta }]: microseconds of CPU, a list of one for each round. Nine lanes, of which the
// relay lanes are those where both are the same; rounds go through all of them, so that all have the same weather.
async function measureLanes() {
    const lanes = dialects.flatMap((client) => dialects.map((upstream) => ({ client, upstream, json: [], stream: [], delta: [] })))
    for (let round = 1; round <= plan.laneRounds; round++) {
        say(`lanes, round ${round} of ${plan.laneRounds}`)
        for (const lane of round % 2 ? lanes : [...lanes].reverse()) {
            const ask = ['--seconds', 1, '--connections', closedConnections, '--dialect', lane.client,
                '--model', `over-${lane.upstream}`]
            await answerWith({ deltas: laneDeltas[0] })
            lane.json.push((await loadWithCpu(chatmux, ...ask)).cpu)
            const short = (await loadWithCpu(chatmux, ...ask, '--stream')).cpu
            await answerWith({ deltas: laneDeltas[1] })
            const long = (await loadWithCpu(chatmux, ...ask, '--stream')).cpu
            lane.stream.push(short)
            lane.delta.push((long - short) / (laneDeltas[1] - laneDeltas[0]))
        }
    }
    await answerWith({})
    return lanes
}

async function measureCapacity(targets) {
    const results = { json: [], streams: [] }
    const seconds = ['--seconds', plan.capacitySeconds]
    for (const [connections, bytes] of plan.capacity) {
        say(`capacity, c = ${connections}, prompts of ${bytes / 1000} KB`)
        const row = { connections, bytes }
        await answerWith({})
        for (const target of targets)
            row[target.name] = await load(target, ...seconds, '--connections', connections, '--prompt', bytes)
        results.json.push(row)
    }
    for (const connections of plan.streams) {
        say(`capacity, ${connections} streams of ${capacityDeltas} deltas`)
        const row = { connections }
        for (const target of targets) {
            await answerWith({ deltas: capacityDeltas, interval_us: pacedUs })
            const paced = await load(target, ...seconds, '--connections', connections, '--stream')
            await answerWith({ deltas: capacityDeltas })
            const burst = await load(target, ...seconds, '--connections', connections, '--stream')
            row[target.name] = { paced, burst }
        }
        results.streams.push(row)
    }
    return results
}

async function measureHeld(targets) {
    const results = []
    await answerWith({ deltas: 1_000_000, interval_us: 1_000_000 })
    for (const count of plan.held) {
        const row = { count }
        for (const target of targets) {
            say(`${count} held streams, ${target.name}`)
            row[target.name] = await hold(target, count).catch((error) => {
                problems.add(error.message)
                return null
            })
        }
        results.push(row)
    }
    await answerWith({})
    return results
}

async function measureIdle() {
    say('idle process')
    const samples = []
    for (let i = 0; i < 3; i++) {
        await startTarget(chatmux, { warm: false })
        await sleep(quick ? 300 : 1000)
        samples.push(memory(chatmux.child.pid))
        await stop(chatmux.child)
    }
    return { resident: median(samples.map((s) => s.resident)), anonymous: median(samples.map((s) => s.anonymous)) }
}

function measureStart() {
    say('cold start')
    const args = [chatmux.port, targetCpu, key, model, ...chatmux.command].map(String)
    const command = ['-c', String(otherCpu), join(benchBin, 'start'), ...args]
    return Array.from({ length: plan.starts }, () => Number(execFileSync('taskset', command, { encoding: 'utf8' })))
}

// { ns, total, cooling, allocations, choices }
function measureChoice() {
    say('choosing a credential')
    const command = ['-c', String(targetCpu), join(benchBin, 'pool_bench')]
    const told = spawnSync('taskset', command, { encoding: 'utf8' }).stdout ?? '' // it exits with 1 beyond its target
    const found = [/^(\d+) credentials, (\d+) cooling/m, /^choice +(\d+) ns/m, /^(\d+) allocations in (\d+) choices/m]
        .map((line) => line.exec(told)?.slice(1).map(Number))
    if (found.includes(undefined)) {
        problems.add('pool_bench did not tell what choosing a credential costs')
        return null
    }
    const [[total, cooling], [ns], [allocations, choices]] = found
    return { ns, total, cooling, allocations, choices }
}

function strippedBytes() {
    const copy = join(dir, 'stripped')
    execFileSync('strip', ['--strip-all', '-o', copy, chatmuxBin])
    return statSync(copy).size
}

// --- the report --------------------------------------------------------------------------------------------

const table = (head, rows) =>
    [head, head.map((_, i) => (i === 0 ? '---' : '--:')), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n')

const us = (value) =>
    value >= 10_000 ? `${(value / 1000).toFixed(1)} ms` : `${value.toFixed(value < 100 ? 1 : 0)} µs`
const mib = (kib) => `${(kib / 1024).toFixed(1)} MiB`
const ms = (value) => `${(value / 1000).toFixed(2)} ms`
const signed = (text) => (text.startsWith('-') ? text.replace('-', '−') : `+${text}`)
const grouped = (n) => n.toLocaleString('en-US')
const times = (value) => `${value.toFixed(2)} ×`

function promises({ cost, held, idle, starts, choice, bytes }) {
    const of = (target, part, figure) => median(cost[target.name][part].map(figure))
    const range = (part, figure) => {
        const ratios = sorted(cost.chatmux[part].map((r, i) => figure(r) / figure(cost.nginx[part][i])))
        return `${ratios[0].toFixed(2)} to ${ratios.at(-1).toFixed(2)}`
    }
    const rows = []
    const row = (what, bare, ours, compared, target, met, note = '') =>
        rows.push([what, bare, ours, compared, target, met ? 'yes' : '**no**', note])

    const relative = (what, part, limit) => {
        const figure = (r) => r.cpu
        const [bare, ours] = [of(nginx, part, figure), of(chatmux, part, figure)]
        row(what, us(bare), us(ours), times(ours / bare), `≤ ${limit.toFixed(1)} ×`, ours / bare <= limit,
            range(part, figure))
    }
    relative('CPU of one chat completion, not streamed', 'json', 3)
    relative('CPU of a streamed answer of 20 deltas, written at once', 'burst', 2)
    relative('the same, deltas 10 ms apart', 'paced', 2)
    for (const [name, limit] of [['p50', 150], ['p99', 1000]]) {
        const figure = (r) => r.latency[name]
        const [bare, ours] = [of(nginx, 'open', figure), of(chatmux, 'open', figure)]
        const differences = sorted(cost.chatmux.open.map((r, i) => figure(r) - figure(cost.nginx.open[i])))
        row(`latency at ${openRate} requests/s, ${name}`, ms(bare), ms(ours), signed(ms(ours - bare)),
            `≤ ${signed(ms(limit))}`, ours - bare <= limit,
            `${signed(ms(differences[0]))} to ${signed(ms(differences.at(-1)))}`)
    }
    for (const { count, nginx: bare, chatmux: ours } of held) {
        const each = (of) => (of ? `${of.each.toFixed(1)} KiB` : 'not measured')
        const share = (of) => (of ? `${(100 * of.share).toFixed(0)} %` : '?')
        row(`memory of a held stream, of ${count}, one delta a second`, each(bare), each(ours),
            bare && ours ? times(ours.each / bare.each) : '', '≤ 36 KiB', ours !== null && ours.each <= 36,
            `takes ${share(ours)} of the core (nginx ${share(bare)})`)
    }
    row('idle process, resident', '', mib(idle.resident), '', '≤ 14 MiB', idle.resident <= 14 * 1024)
    row('idle process, anonymous', '', mib(idle.anonymous), '', '≤ 4 MiB', idle.anonymous <= 4 * 1024)
    row('cold start, exec to the first completion', '', `${median(starts).toFixed(1)} ms`, '', '≤ 50 ms',
        median(starts) <= 50, `${Math.min(...starts).toFixed(1)} to ${Math.max(...starts).toFixed(1)} ms`)
    if (choice) {
        const { ns, total, cooling, allocations, choices } = choice
        row(`choosing among ${grouped(total)} credentials, ${(100 * cooling / total).toFixed(0)} % cooling`, '', us(ns / 1000), '',
            '≤ 2 µs, no allocation', ns <= 2000 && allocations === 0,
            `${grouped(allocations)} allocations in ${grouped(choices)} choices`)
    }
    row('size of the stripped binary', '', mib(bytes / 1024), '', '≤ 2 MiB', bytes <= 2 << 20)
    return table(['what', 'nginx', 'chatmux', 'compared', 'target', 'met', 'rounds, remarks'], rows)
}

// Each translation beside the relay lane of the dialect that its client speaks and that of its upstream's.
function laneTable(lanes) {
    const of = (client, upstream, part) =>
        median(lanes.find((lane) => lane.client === client && lane.upstream === upstream)[part])
    const cells = ({ client, upstream }, part) => {
        const [ours, ...relays] = [[client, upstream], [client, client], [upstream, upstream]].map((l) => of(...l, part))
        const ratios = relays.map((relay) => ours / relay)
        return client === upstream ? [us(ours), ''] : [us(ours), `${times(ratios[0])}, ${times(ratios[1])}`]
    }
    const worst = ['json', 'stream', 'delta'].map((part) => Math.max(...lanes
        .filter(({ client, upstream }) => client !== upstream)
        .flatMap(({ client, upstream }) => [client, upstream].map((own) => of(client, upstream, part) / of(own, own, part)))))
    const rows = lanes.map((lane) => [`${lane.client} over ${lane.upstream}`,
        ...['json', 'stream', 'delta'].flatMap((part) => cells(lane, part))])
    return `${table(['client over upstream', 'whole answer', 'compared', `stream of ${laneDeltas[0]}`, 'compared', 'each further delta',
        'compared'], rows)}

The most that a translation costs, by either relay lane: ${times(worst[0])} for a whole answer, ${times(worst[1])} for a
stream, ${times(worst[2])} for a delta; the target is 2 ×, which is ${worst.every((w) => w <= 2) ? 'met' : '**not met**'}.`
}

function capacityTables({ json, streams }) {
    const answers = json.map((row) => [row.connections, `${row.bytes / 1000} KB`,
        ...[nginx, chatmux].flatMap(({ name }) => [Math.round(row[name].per_second), us(row[name].latency.p50),
            us(row[name].latency.p99)])])
    const streamed = streams.map((row) => [row.connections,
        ...[nginx, chatmux].flatMap(({ name }) => {
            const { paced, burst } = row[name]
            return [us(paced.first.p50), us(paced.first.p99), us(paced.latency.p50), Math.round(burst.per_second)]
        })])
    return `Answers that are not streamed, closed loop (each connection sends the next request after the answer):

${table(['connections', 'prompt', 'nginx req/s', 'p50', 'p99', 'chatmux req/s', 'p50', 'p99'], answers)}

Streams of ${capacityDeltas} deltas. Times are measured with deltas ${pacedUs / 1000} ms apart, which are
${(capacityDeltas * pacedUs) / 1000} ms in all: to the first delta, and to the end. Streams per second are measured with all
deltas written at once:

${table(['connections', 'nginx first p50', 'first p99', 'total p50', 'streams/s', 'chatmux first p50', 'first p99',
        'total p50', 'streams/s'], streamed)}`
}

// One day of a request log, a few gigabytes: left out where there is no room.
function measureLog() {
    const { bavail, bsize } = statfsSync(dir)
    if (bavail * bsize < logRows * 500) {
        problems.add(`no room for a request log of ${logRows} rows: it was not measured`)
        return null
    }
    say(`a request log of ${logRows} rows`)
    const place = join(dir, 'log')
    mkdirSync(place)
    try {
        return JSON.parse(execFileSync(join(benchBin, 'log_bench'), [String(logRows), place], { encoding: 'utf8' }))
    } finally {
        rmSync(place, { recursive: true })
    }
}

function logTable(log) {
    if (!log) return 'Not measured: there was no room for it.'
    const names = { newest: 'the newest', key: 'of one client key', model: 'of one model', rare: 'of a rare outcome', id: 'one request by its id', old: 'an old page' }
    const pages = Object.entries(log.pages).map(([name, [median, longest]]) => [names[name], `${median.toFixed(2)} ms`, `${longest.toFixed(2)} ms`])
    return `${(log.rows / 1e6).toFixed(1)} million rows of one day, ${(log.bytes / 2 ** 30).toFixed(1)} GiB. A row takes ${log.first_us.toFixed(1)} µs of CPU
(the first hundred thousand) to ${log.last_us.toFixed(1)} µs (the last), on a thread that no request waits for. Pages of 50 rows, 41 of each:

${table(['page', 'median', 'longest'], pages)}`
}

function machine() {
    const cpu = os.cpus()[0]?.model.trim() ?? 'unknown processor'
    const system = /^PRETTY_NAME="?([^"\n]*)/m.exec(read('/etc/os-release'))?.[1] ?? 'Linux'
    const kernel = os.release().match(/^\d+\.\d+/)?.[0]
    const version = (command, args, pattern) => {
        const out = execFileSync('sh', ['-c', `${command} ${args} 2>&1`], { encoding: 'utf8' })
        return pattern.exec(out)?.[1] ?? '?'
    }
    const virtual = /^flags.*\bhypervisor\b/m.test(read('/proc/cpuinfo')) ? 'virtual machine, ' : ''
    const gib = (os.totalmem() / 2 ** 30).toFixed(1)
    const proxy = version('nginx', '-v', /nginx\/([\d.]+)/)
    return `${virtual}${cpu}, ${os.cpus().length} cores, ${gib} GiB; ${system}, Linux ${kernel}; nginx ${proxy}`
}

function report(figures) {
    return `# Measured

${new Date().toISOString().slice(0, 10)}. ${machine()}.

One core for the program that is measured, another one for a fake upstream and the load generator, plain
HTTP, everything on loopback. nginx is a bare reverse proxy; chatmux authenticates, routes, meters and writes
an access log and the log of requests, for a stored key with limits per minute, of requests at once and a budget. Medians of ${plan.rounds} rounds of ${plan.seconds} s that alternate between the two; the last column has the extremes of
single rounds. CPU is user and system time of the whole process tree at ${closedConnections} connections. Ratios carry
over to other machines, times do not. \`make bench\` makes this file anew.

${promises(figures)}

## What translation costs

CPU of chatmux as above, medians of ${plan.laneRounds} rounds of 1 s each. Where client and upstream speak one dialect the relay lane
carries the bytes; each other row is compared with the relay lane of the client's dialect and with that of the upstream's. Whole
answers of Anthropic's that are translated are asked for as such up to 8192 tokens, beyond as streams.

${laneTable(figures.lanes)}

## Capacity of one core

${capacityTables(figures.capacity)}

## A long request log

${logTable(figures.log)}
${problems.size > 0 ? `\n## What went wrong\n\n${[...problems].map((p) => `- ${p}`).join('\n')}\n` : ''}`
}

// --- the run -------------------------------------------------------------------------------------------------

for (const signal of ['SIGINT', 'SIGTERM']) {
    process.once(signal, () => {
        for (const child of running)
            child.kill('SIGTERM')
        rmSync(dir, { recursive: true, force: true })
        process.exit(130)
    })
}

let status = 0
try {
    execFileSync('taskset', ['-acp', String(otherCpu), String(process.pid)])
    const targets = [nginx, chatmux]
    const cost = await measureCost(targets)
    const lanes = await measureLanes()
    const capacity = await measureCapacity(targets)
    for (const target of targets)
        await stop(target.child)
    const held = await measureHeld(targets)
    const idle = await measureIdle()
    const starts = measureStart()
    const choice = measureChoice()
    const log = measureLog()
    const text = report({ cost, lanes, capacity, held, idle, starts, choice, log, bytes: strippedBytes() })
    const file = process.env.RESULTS ?? (quick ? null : 'bench/results.md')
    process.stdout.write(`\n${text}`)
    if (file !== null)
        writeFileSync(file, text)
    if (cpus.length < 2)
        say('this machine has one core: everything shared it, the times are worth little')
} catch (error) {
    say(error.message)
    status = 1
} finally {
    for (const child of [...running])
        await stop(child).catch(() => {})
    rmSync(dir, { recursive: true, force: true })
}
process.exit(status)
