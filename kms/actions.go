package kms

// action is an operation as authorization sees it.
type action struct {
	// permission is the name in policies, without kms:.
	permission string
	// states says in which key states the operation is allowed.
	states stateRules
	// aliases tells whether the key may be named by an alias.
	aliases bool
	// usage is what the key must be for; empty if it does not matter.
	usage KeyUsage
}

// The actions on keys, by permission. ReEncrypt has two. Operations that name no key (ListKeys, GenerateRandom) have no
// row.
var (
	actionDecrypt              = action{permission: "Decrypt", states: cryptographic, aliases: true, usage: EncryptDecrypt}
	actionEncrypt              = action{permission: "Encrypt", states: cryptographic, aliases: true, usage: EncryptDecrypt}
	actionGenerateDataKey      = action{permission: "GenerateDataKey", states: cryptographic, aliases: true, usage: EncryptDecrypt}
	actionGenerateDataKeyBlind = action{permission: "GenerateDataKeyWithoutPlaintext", states: cryptographic, aliases: true, usage: EncryptDecrypt}
	actionReEncryptFrom        = action{permission: "ReEncryptFrom", states: cryptographic, aliases: true, usage: EncryptDecrypt}
	actionReEncryptTo          = action{permission: "ReEncryptTo", states: cryptographic, aliases: true, usage: EncryptDecrypt}
	actionDescribeKey          = action{permission: "DescribeKey", states: anyState, aliases: true}
	actionEnableKey            = action{permission: "EnableKey", states: toggling}
	actionDisableKey           = action{permission: "DisableKey", states: toggling}
	actionUpdateKeyDescription = action{permission: "UpdateKeyDescription", states: notDying}
	actionCreateAlias          = action{permission: "CreateAlias", states: notDying}
	actionUpdateAlias          = action{permission: "UpdateAlias", states: notDying}
	actionDeleteAlias          = action{permission: "DeleteAlias", states: anyState}
	actionListAliases          = action{permission: "ListAliases", states: anyState}
)
