// The command line: one declaration parses it and writes its help; everything odd is refused in one line.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { COMMON, helpText, parseArguments, type Usage } from '../lib/arguments.ts'
import { Failure } from '../lib/failure.ts'

const usage: Usage = {
  name: 'greet',
  summary: 'Greets somebody.',
  positionals: { who: { summary: 'whom', parse: (name) => name.toUpperCase() } },
  options: { ...COMMON, tone: { summary: 'how', value: 'TONE' } },
}

test('positionals and options are found in any order, and a value may stand behind = or alone', () => {
  const given = { who: 'ANNA', tone: 'kind', json: 'true' }
  assert.equal(parseArguments(usage, ['anna', '--tone', 'kind', '--json']), given)
  assert.equal(parseArguments(usage, ['--json', '--tone=kind', 'anna']), given)
  assert.equal(parseArguments(usage, ['--', 'anna']), { who: 'ANNA' })
})

for (const [what, words, problem] of [
  ['nothing', [], 'WHO is missing'],
  ['one too many', ['anna', 'bert'], '"bert" is one argument too many'],
  ['an unknown option', ['anna', '--loud'], 'there is no option --loud'],
  ['an unknown short option', ['anna', '-x'], 'there is no option -x'],
  ['a name of Object’s own', ['anna', '--constructor'], 'there is no option --constructor'],
  ['an option twice', ['anna', '--json', '--json'], '--json is given twice'],
  ['a switch with a value', ['anna', '--json=yes'], '--json takes no value'],
  ['an option without its value', ['anna', '--tone'], '--tone needs a value'],
  ['an option whose value is another option', ['anna', '--tone', '--json'], '--tone needs a value'],
  ['an option with an empty value', ['anna', '--tone='], '--tone needs a value'],
] as const)
  test(`${what} is refused with exit 64 and where to look`, () => {
    try {
      parseArguments(usage, words)
      assert.unreachable()
    } catch (error) {
      assert.instance(error, Failure)
      const { message, exit, next } = error as Failure
      assert.match(message, problem)
      assert.is(exit, 64)
      assert.is(next, './runbooks/greet.mts --help')
    }
  })

test('--help needs no positional and names every option and exit code', () => {
  assert.equal(parseArguments(usage, ['--help']), { help: 'true' })
  const text = helpText(usage)
  for (const word of [
    './runbooks/greet.mts WHO',
    'Greets somebody.',
    '--tone TONE',
    '--site FILE',
    '--json',
    '130 interrupted',
  ])
    assert.ok(text.includes(word), word)
})

test.run()
