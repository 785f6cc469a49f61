// What a core dump of a process would hold, read from the outside while it runs: core(5), madvise(2) MADV_DONTDUMP.
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';

/** [{from, to, rights, name, hidden}]; hidden: kept out of core dumps. */
function mappings(pid) {
    const list = [];
    for (const line of readFileSync(`/proc/${pid}/smaps`, 'utf8').split('\n')) {
        const m = /^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+ *(.*)$/.exec(line);
        if (m) list.push({ from: BigInt(`0x${m[1]}`), to: BigInt(`0x${m[2]}`), rights: m[3], name: m[4], hidden: false });
        else if (line.startsWith('VmFlags:')) list.at(-1).hidden = / (dd|io|pf)\b/.test(line);
    }
    return list;
}

/** Where the texts occur in memory: [{text, hidden, mapping, around}]. Only what is private and writable: the rest is in files. */
export function findInMemory(pid, texts) {
    const found = [];
    const mem = openSync(`/proc/${pid}/mem`, 'r');
    try {
        for (const m of mappings(pid)) {
            if (!m.rights.startsWith('rw') || m.name.startsWith('[v')) continue;
            const bytes = Buffer.alloc(Number(m.to - m.from));
            let n = 0;
            try {
                while (n < bytes.length) {
                    const got = readSync(mem, bytes, n, Math.min(bytes.length - n, 1 << 20), m.from + BigInt(n));
                    if (got === 0) break;
                    n += got;
                }
            } catch {
                // reserved addresses, or unmapped meanwhile: what was read so far counts
            }
            for (const text of texts)
                for (let at = bytes.indexOf(text); at >= 0; at = bytes.indexOf(text, at + 1))
                    found.push({ text, hidden: m.hidden, mapping: m.name || 'anonymous', around: bytes.subarray(Math.max(0, at - 60), at + 80).toString('latin1').replace(/[^\x20-\x7e]/g, '.') });
        }
    } finally {
        closeSync(mem);
    }
    return found;
}
