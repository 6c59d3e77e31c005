package kms

import "context"

// DeleteImportedKeyMaterialInput is the input of DeleteImportedKeyMaterial.
type DeleteImportedKeyMaterialInput struct {
	KeyId         string
	KeyMaterialId string
}

// DeleteImportedKeyMaterialOutput is the output of DeleteImportedKeyMaterial. It names no material if the key never had
// any.
type DeleteImportedKeyMaterialOutput struct {
	KeyId         string `json:",omitempty"`
	KeyMaterialId string `json:",omitempty"`
}

// DeleteImportedKeyMaterial destroys imported material, the current one if none is named, and so makes the key unusable
// until the same material is imported again. It is no error if the material is deleted already. New material that waits for
// its rotation is forgotten.
func (s *Service) DeleteImportedKeyMaterial(ctx context.Context, r *Request, in *DeleteImportedKeyMaterialInput) (*DeleteImportedKeyMaterialOutput, error) {
	key, err := s.external(ctx, r, actionDeleteImportedKeyMaterial, in.KeyId, asked{})
	if err != nil {
		return nil, err
	}
	var id string
	err = s.changeMaterial(ctx, r, actionDeleteImportedKeyMaterial, key, func(now *Key) (err error) {
		id, err = now.deleteMaterial(in.KeyMaterialId)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &DeleteImportedKeyMaterialOutput{KeyId: key.ARN(), KeyMaterialId: id}, nil
}

// deleteMaterial drops the material with an id, or the current one, and gives its id as it is shown; "" if the key never had
// material. The material of a key other than a symmetric one has no id that a caller could know.
func (k *Key) deleteMaterial(id string) (string, error) {
	m := k.current()
	if id != "" {
		m = k.material(id)
		if m == nil || !k.symmetric() {
			return "", Errorf(NotFound, "Key material '%s' of key '%s' does not exist", id, k.ARN())
		}
	}
	if m == nil {
		return "", nil
	}
	deleted := k.shownID(m)
	if m.present() {
		k.drop(m)
	}
	return deleted, nil
}
