// Handlebars, strict: a value that is missing is an error that names it, nothing is escaped for HTML, and what is put
// into YAML or INI goes through a helper that makes it read back equal.
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import Handlebars from 'handlebars'
import { misuse } from './failure.ts'
import { ROOT } from './site.ts'

const handlebars = Handlebars.create()

/** Any value as one line of YAML: JSON, which YAML 1.2 reads as it is but for a few characters that it may not hold. */
handlebars.registerHelper('yaml', (value: unknown) => {
  if (value === undefined)
    throw misuse({ found: 'a template puts a value into YAML that may be left out', expected: 'an {{#if}} around it' })
  return JSON.stringify(value).replace(
    /[\u007f-\u009f\u2028\u2029\ufeff\ufffe\uffff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
})

/** A value for Ansible's INI inventory: nothing that would end the value, start a comment or a new line. */
handlebars.registerHelper('ini', (value: unknown) => {
  if (typeof value !== 'string' || !/^[\w.:/@+-]+$/.test(value))
    throw misuse({ found: `${JSON.stringify(value)} cannot stand in an inventory`, expected: 'a plain word' })
  return value
})

/**
 * @param name file under templates/, without .hbs: 'values.yaml'
 * @param view what the template may use; a name that it uses and the view lacks is an error
 */
export function renderTemplate(name: string, view: Record<string, unknown>): string {
  const file = join(ROOT, 'templates', `${name}.hbs`)
  if (!existsSync(file)) throw misuse({ found: `there is no template ${file}`, next: 'git status' })
  return render(readFileSync(file, 'utf8'), view, name)
}

/** @param source for messages: what the text is the template of */
export function render(template: string, view: Record<string, unknown>, source: string): string {
  const compiled = handlebars.compile(template, {
    noEscape: true,
    strict: true,
    knownHelpersOnly: true,
    knownHelpers: { yaml: true, ini: true },
  })
  return compiled(complete(view, source, ''))
}

/** The view, but asking it for a name that it does not have throws. A name that is there and undefined is a 'no'. */
function complete<T extends object>(view: T, source: string, path: string): T {
  return new Proxy(view, {
    get(target, name, receiver) {
      const value: unknown = Reflect.get(target, name, receiver)
      if (typeof name === 'symbol' || name === 'length' || name === 'toJSON') return value // asked by languages, not templates
      if (!Object.hasOwn(target, name))
        throw misuse({
          found: `the template ${source} needs ${path}${name}, which is not given`,
          next: `correct templates/${source}.hbs`,
        })
      const isPlain = typeof value === 'object' && value !== null && !Array.isArray(value)
      return isPlain ? complete(value, source, `${path}${name}.`) : value
    },
  })
}
