#!/usr/bin/env python3
"""figures.py read FOLDER DEVICE KIND LIST RECORDS.jsonl   what a compiler made of a device's kernels, a JSON object a line
figures.py table FIGURES.jsonl…                         as a Markdown table
figures.py compare RECORD.jsonl FIGURES.jsonl…          exits 1 where something is worse than the record

The hot loop is the loop with most multiply-adds that holds no loop with more than a third of its own. A tile is a turn of the largest
loop with multiply-adds, the loops in it counted as often as they turn; a branch counts as taken both ways."""
import collections, glob, itertools, json, re, sys

FMA_AMD = re.compile('v_(fma|fmaak|fmamk|mad|mac|madmk)_(f32|legacy|mix)|v_fmac|v_madak')


def category(op, rules, default):
    return next((name for name, pattern in rules if re.match(pattern, op)), default)


# Each parser yields instructions {cat, n: issue slots, fma: multiply-adds (of a lane; Intel: of all channels), to: where it may jump,
# always: jumps always, end: ends the program} and the places of labels.
AMD = [('matrix', r'v_.*wmma'), ('valu', 'v_'), ('lds', 'ds_'), ('vmem', '(buffer|global|flat)_'), ('scratch', 'scratch_'),
       ('smem', 's_(buffer_)?load'), ('hint', 's_(waitcnt|delay_alu|clause|nop|wait_|inst_pref|sethalt|set_inst)'),
       ('barrier', 's_barrier$'), ('salu', 's_')]


def amd(lines):
    ins, labels = [], {}
    for line in lines:
        line = line.split(';')[0].strip()
        if not line: continue
        if re.match(r'BB\d+:', line): labels[line[:-1]] = len(ins); continue
        op = line.split()[0]
        d = dict(n=1, fma=0, cat=category(op, AMD, '?'), end=op in ('s_endpgm', 's_setpc_b64'))
        if jump := re.match(r's_c?branch\S* (BB\d+)', line): d |= dict(to=jump[1], always=op == 's_branch')
        if d['cat'] == 'valu':
            if op.startswith('v_dual'): d['fma'] = len(re.findall('v_dual_fma', line))
            elif FMA_AMD.match(op): d['fma'] = 1
            elif op.startswith(('v_pk_fma', 'v_dot2')): d['fma'] = 2
        ins.append(d)
    return ins, labels


NV = [('ffma', 'ffma'), ('hfma', 'hfma2'), ('matrix', '[hi]mma'), ('vmem', r'(ld|st)\.global|ldg'), ('lds', r'(ld|st)\.shared|lds'),
      ('scratch', r'(ld|st)\.local|ldl|stl'), ('smem', 'ldc'), ('mufu', 'mufu'), ('barrier', 'bar')]


def nv(lines):
    ins, labels = [], {}
    for line in lines:
        if block := re.match(r'block(?:\.u)? \d+ (L\d+) ', line): labels[block[1]] = len(ins); continue
        body = line.split('//')[0].strip()
        if not body or body[0] == '}': continue  # `} -> [3, 4]`: the blocks that follow
        predicated = body.startswith('@')
        body = re.sub(r'^@!?\S+\s+', '', body)
        op = body.split('=', 1)[1].split()[0] if ' = ' in body else body.split()[0]
        jump = re.search(r'\bbra\b.* (L\d+)', body)
        other = 'branch' if jump else 'uniform' if re.match(r'u[rp]\d', body) else 'alu'
        d = dict(n=1, cat=category(op, NV, other), end=op == 'exit' and not predicated)
        d['fma'] = {'ffma': 1, 'hfma': 2}.get(d['cat'], 0)
        if jump: d |= dict(to=jump[1], always=not predicated and 'up' not in body)
        ins.append(d)
    return ins, labels


FD = [('nop', 'nop$'), ('lds', '(ldl|stl)(?!w)'), ('scratch', 'ldp|stp'), ('vmem', 'ldib|stib|ldg|stg|isam|ldc|resinfo'),
      ('mov', 'mov|cov'), ('barrier', 'bar'), ('branch', 'br|jump|bkt|predt|prede|getone|shps|shpe|end|ret')]


def fd(lines):
    raw, ins, labels = [], [], {}
    for line in lines:
        if found := re.match(r'\s*:\d+:\d+:\d+\[[^\]]*\]\s*(.*)', line): raw.append(found[1].strip())
        elif found := re.match(r'\s*(l\d+):', line): labels[found[1]] = len(raw)
        else:
            line = line.split(';')[0].strip()
            if line and not line.startswith(('@', 'block', '//')): raw.append(line)
    for line in raw:
        repeat = re.search(r'\(rpt(\d)\)', line)
        op = (re.sub(r'\((sy|ss|jp|rpt\d|nop\d|ul|eq|sat)\)\s*', '', line).split() or ['?'])[0]
        d = dict(n=1 + int(repeat[1]) if repeat else 1, cat=category(op, FD, 'alu'))
        d['fma'] = d['n'] if op.startswith(('mad.f32', 'mad.f16')) else 0
        jump = re.search(r'#(l\d+|-?\d+)', line)
        if jump and d['cat'] == 'branch':
            d |= dict(to=jump[1] if jump[1][0] == 'l' else len(ins) + int(jump[1]), always=op == 'jump')
        ins.append(d)
    return ins, labels


INTEL = [('matrix', 'dpas'), ('send', 'send'), ('math', 'math'), ('sync', 'sync'),
         ('branch', '(while|if|else|endif|break|cont|jmpi|do|goto|join|halt)$')]


def intel(lines):
    ins, labels = [], {}
    for line in lines:
        if found := re.match(r'(L\d+):', line): labels[found[1]] = len(ins); line = line[found.end():]
        found = re.match(r'(?:\([^)]*\)\s*)?([a-z][a-z0-9_.]*)\b.*?\((\d+)\)', line.strip())
        if not found: continue
        op, width = found[1], int(found[2])
        types = re.findall(r':([a-z]+)', line)
        fma = op == 'mad' and ('f' in types or 'hf' in types) or op.startswith('mac')
        other = 'fpu' if fma or types[:1] in (['f'], ['hf']) else 'alu'
        d = dict(n=1, fma=width if fma else 0, cat=category(op, INTEL, other))
        if d['cat'] == 'send': d['cat'] = 'slm' if 'slm' in line else 'scratch' if 'scratch' in line else 'send'
        if op in ('while', 'jmpi', 'goto') and (jump := re.search(r'\b(L\d+)\b', line)): d['to'] = jump[1]
        ins.append(d)
    return ins, labels


# kind: parser, the file of the assembly, (arithmetic slots, all slots) of a mix
KINDS = {
    'amd': (amd, 'Assembly', lambda m: (m['valu'] + m['matrix'], m['instr'] - m['hint'])),
    'nv': (nv, 'NAK_assembly', lambda m: (m['ffma'] + m['hfma'] + m['alu'] + m['mufu'], m['instr'])),
    'fd': (fd, 'IR3_Assembly', lambda m: (m['alu'] + m['mov'], m['instr'] - m['nop'])),
    'intel': (intel, 'GEN_Assembly', lambda m: (m['fpu'], m['instr'] - m['sync'])),
}


def loops(ins, labels):
    """Natural loops as sets of instruction indices, from the control flow graph."""
    place = lambda d: d['to'] if isinstance(d['to'], int) else labels.get(d['to'])
    starts = {0} | {x for x in labels.values() if x < len(ins)}
    for i, d in enumerate(ins):
        if 'to' in d: starts |= {x for x in (place(d), i + 1) if x is not None and x < len(ins)}
    starts = sorted(starts)
    ends = starts[1:] + [len(ins)]
    block = {s: k for k, s in enumerate(starts)}
    after, before = [[] for _ in starts], [[] for _ in starts]
    for k, end in enumerate(ends):
        last = ins[end - 1]
        if 'to' in last and place(last) in block: after[k].append(block[place(last)])
        if end in block and not last.get('always' if 'to' in last else 'end'): after[k].append(block[end])
    for k, targets in enumerate(after):
        for t in targets: before[t].append(k)
    # back edges by depth-first search; a loop is what reaches its back edge without passing its head
    state, back, stack = [0] * len(starts), [], [(0, iter(after[0]))]
    state[0] = 1
    while stack:
        k, targets = stack[-1]
        for t in targets:
            if state[t] == 1: back.append((k, t))
            elif state[t] == 0:
                state[t] = 1; stack.append((t, iter(after[t]))); break
        else:
            state[k] = 2; stack.pop()
    heads = collections.defaultdict(set)
    for k, head in back:
        body, todo = {head}, [k]
        while todo:
            x = todo.pop()
            if x in body: continue
            body.add(x); todo += [p for p in before[x] if state[p] == 2]
        heads[head] |= body
    return [frozenset(i for k in body for i in range(starts[k], ends[k])) for _, body in sorted(heads.items())]


def mix(ins, body, weight={}):
    count = collections.Counter()
    for i in body:
        times = weight.get(i, 1)
        count[ins[i]['cat']] += ins[i]['n'] * times; count['instr'] += ins[i]['n'] * times; count['fma'] += ins[i]['fma'] * times
    return count


def assembly(path, parser):
    with open(path, errors='replace') as file: ins, labels = parser([line.replace('\0', '') for line in file])
    return ins, loops(ins, labels) if ins else []


def hot_loop(path, parser):
    """The mix of the hot loop and of what the loop around it adds, or None."""
    ins, found = assembly(path, parser)
    value = {l: m['fma'] + 64 * m['matrix'] for l in found for m in [mix(ins, l)]}
    inner = [l for l in found if value[l] and not any(m < l and value[m] > value[l] / 3 for m in found)]
    if not inner: return None
    hot = max(inner, key=lambda l: (value[l], -len(l)))
    around = min((l for l in found if hot < l), key=len, default=None)
    return mix(ins, hot), mix(ins, around - hot) if around else None


def shares(kind, record, path, want):
    """Of a turn of the hot loop (or of `turns` of them and the loop around): multiply-adds, wanted ones, arithmetic slots, all slots;
    named mixes."""
    parser, _, slots = KINDS[kind]
    found = hot_loop(path, parser)
    if not found: return None
    hot, around = found
    fma = hot['fma'] / (record['subgroup'] if kind == 'intel' else 1)
    if not fma: return None
    arithmetic, every = slots(hot)
    wanted, turns = want or (round(fma), 1)
    if turns > 1 and fma >= 0.9 * wanted * turns: wanted *= turns  # the compiler unrolled the hot loop into the one around
    elif turns > 1 and around:
        more, all_more = slots(around)
        arithmetic, every, fma, wanted = arithmetic * turns + more, every * turns + all_more, fma * turns, wanted * turns
    return fma, wanted, arithmetic, every, [('a turn of the hot loop', hot), ('of the loop around', around)]


def tile(kind, record, path, wants, around=0):
    """The same of a turn of the largest loop with multiply-adds, or where loops stand `around` that one of the largest in it, or a
    complaint. `wants`: of each loop in it, in their order, the multiply-adds wanted in the tile and its turns, or 0: as many as give them. A compiler may have unrolled some of the loops whole:
    then those that are left are the ones that fit the sum best."""
    parser, _, slots = KINDS[kind]
    ins, found = assembly(path, parser)
    lanes = record['subgroup'] if kind == 'intel' else 1
    fma = lambda body: sum(ins[i]['fma'] for i in body) / lanes
    found = [l for l in found if fma(l)]
    if not found: return None
    whole, wanted = max(found, key=len), sum(want for want, _ in wants)
    for _ in range(around): whole = max((l for l in found if l < whole), key=len, default=whole)
    inner = sorted((l for l in found if l < whole and not any(l < m < whole for m in found)), key=min)
    nests = [max((m for m in found if m < l), key=fma, default=frozenset()) for l in inner]
    seen = ', '.join(f'{fma(l):.0f}' + (f' ({fma(nest):.0f} of them in a loop inside)' if nest else '') for l, nest in zip(inner, nests))
    if len(inner) > len(wants): return f'{len(inner)} loops in the tile, of {seen} multiply-adds; {len(wants)} wanted'
    best = None
    for choice in itertools.combinations(wants, len(inner)):
        weight, parts = {}, []
        for l, nest, (want, turns) in zip(inner, nests, choice):
            if nest and not turns: return f'loops of {seen} multiply-adds: tell the turns of the outer one, {want}xTURNS'
            turns = turns or max(1, round(want / fma(l)))
            more = max(1, round(want / turns / fma(nest))) if nest else 1
            weight |= {i: turns * (more if i in nest else 1) for i in l}
            parts.append((f'loop of {fma(l):.0f} multiply-adds, {turns} turns' + (f', {more} of the loop inside' if nest else ''), l))
        total = mix(ins, whole, weight)
        off = abs(total['fma'] / lanes - wanted)
        if best is None or off < best[0]: best = off, weight, parts + [('besides', whole.difference(*inner))], total
    _, weight, parts, total = best
    return total['fma'] / lanes, wanted, *slots(total), [(name, mix(ins, body, weight)) for name, body in parts]


def figures(kind, stats):
    """Registers, spills, occupancy, instructions, as the compiler states them."""
    get = stats.get
    if kind == 'amd':
        spills = get('Spilled VGPRs', 0) + get('Spilled SGPRs', 0)
        return get('VGPRs'), spills, f"{get('Subgroups per SIMD')} waves/SIMD", get('Instructions')
    if kind == 'nv': return get('Number of GPRs'), get('Spills to memory'), f"{get('Max warps/SM')} warps/SM", get('Instruction count')
    if kind == 'fd': return get('Registers used'), get('STP Count'), f"{get('Max Waves Per Core')} waves", get('Instruction Count')
    if kind == 'agx': return get('GPRs'), get('Spills'), f"{get('Threads')} threads", get('Instructions')
    return get('Max live registers'), get('Spills'), f"SIMD{stats['subgroup']}", get('Instructions')


def of_kernel(folder, device, kind, kernel, record, mode, want):
    row = dict(device=device, kernel=kernel)
    if 'error' in record: return row | dict(error=record['error'])
    stats = record['stats'] | dict(subgroup=record['subgroup'])
    row |= dict(zip(('registers', 'spills', 'occupancy', 'instructions'), figures(kind, stats)))
    if mode == 'none' or kind not in KINDS: return row
    if mode in ('tile', 'tile-of-heads'):
        study = lambda *x: tile(*x, around=int(mode == 'tile-of-heads'))
        want = [tuple(map(int, f'{n}x0'.split('x')[:2])) for n in want.split(',')]
    else: study, want = shares, [*map(int, want.split(',')), 1][:2]
    paths = sorted(glob.glob(f'{folder}/{glob.escape(kernel)}.*.{KINDS[kind][1]}.txt'))
    found = next((x for path in paths if (x := study(kind, record, path, want))), None)
    if isinstance(found, str) or not found: return row | dict(unseen=found or 'no loop with multiply-adds')
    fma, wanted, arithmetic, every, _ = found
    return row | dict(share_arithmetic=round(100 * wanted / arithmetic), share_all=round(100 * wanted / every))


def read(folder, device, kind, listed, records):
    asked = {}
    with open(listed) as file:
        for words in map(str.split, file): asked[words[0]] = words[1:]
    with open(records) as file: lines = [json.loads(line) for line in file if line.startswith('{')]
    seen = set()
    for record in lines:
        kernel = record['kernel']
        if kernel in seen: continue
        seen.add(kernel)
        spec, mode, *want = asked[kernel]
        print(json.dumps(of_kernel(folder, device, kind, kernel, record, mode, *want or ['']) | dict(spec=spec)))
    for kernel in asked.keys() - seen: print(json.dumps(dict(device=device, kernel=kernel, error='nothing was said of it')))


def rows(paths):
    for path in paths:
        with open(path) as file: yield from map(json.loads, file)


def table(paths):
    print('| kernel | device | registers | spills | occupancy | instructions | share: arithmetic / all issue |')
    print('|---|---|---|---|---|---|---|')
    for row in rows(paths):
        cells = [row['kernel'], row['device'], *(row.get(x, '') for x in ('registers', 'spills', 'occupancy', 'instructions'))]
        share = f"{row['share_arithmetic']} / {row['share_all']} %" if 'share_all' in row else row.get('unseen', '')
        print('|', ' | '.join(map(str, cells)), '|', row.get('error', share), '|')


def compare(record, paths):
    old = {(row['device'], row['kernel']): row for row in rows([record])}
    worse = []
    for row in rows(paths):
        name = f"{row['kernel']} on {row['device']}"
        before = old.get((row['device'], row['kernel']), {})
        if 'error' in row and 'error' not in before: worse.append(f"{name}: the compiler ended with {row['error']}")
        if row.get('spills', 0) > before.get('spills', 0): worse.append(f"{name}: {row['spills']} spills, {before.get('spills', 0)} on record")
        for share in 'share_arithmetic', 'share_all':
            now, then = row.get(share), before.get(share)
            if then is not None and now is None: worse.append(f"{name}: no {share} is seen, {then} % on record")
            elif then is not None and now < then - 3: worse.append(f"{name}: {share} {now} %, {then} % on record")
    print('\n'.join(worse) or 'no worse than the record')
    sys.exit(bool(worse))


if __name__ == '__main__':
    dict(read=read, table=lambda *paths: table(paths), compare=lambda old, *new: compare(old, new))[sys.argv[1]](*sys.argv[2:])
