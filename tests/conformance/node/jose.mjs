// A resource server in JavaScript: jose verifies an action token with the published keys.
import { createRemoteJWKSet, jwtVerify } from "jose";

const told = JSON.parse(process.env.TOLD);
const keys = createRemoteJWKSet(new URL(told.jwks_uri));
const { payload, protectedHeader } = await jwtVerify(told.token, keys, {
  issuer: told.issuer,
  audience: told.audience,
  typ: "at+jwt",
  algorithms: ["ES256"],
});
console.log(JSON.stringify({ payload, protectedHeader }));
