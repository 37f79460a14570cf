// The version, which `npm run build` bakes in.

declare const APP_VERSION: string | undefined

export const version: string = typeof APP_VERSION === 'string' ? APP_VERSION : 'unbuilt'
